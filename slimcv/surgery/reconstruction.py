"""Fitting converted layers, one by one, to what the layers they replace gave on the same pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.fx import GraphModule
from torch.nn import functional

from slimcv.surgery.graph import called, tidy
from slimcv.surgery.least_squares import fit_pair
from slimcv.surgery.separable import Conversion, pair_of, set_pair
from slimcv.surgery.sweep import Sweep

SAMPLES = 8192
"""Positions a layer is fitted on, over all pictures; a few times the unknowns of the widest usual layer."""


@dataclass(frozen=True)
class Fit:
    """Squared error of a converted layer over its target's variance, as carried over and after the fit."""

    name: str
    carried: float
    fitted: float


@torch.no_grad()
def reconstruct(
    original: GraphModule,
    converted: GraphModule,
    *,
    conversions: Sequence[Conversion],
    batches: Sequence[Tensor],
    rounds: int,
    seed: int,
) -> list[Fit]:
    """Fit each conversion on normalised pictures `(n, C, H, W)`, in order; both models in eval mode.

    The inputs come from the converted network and the targets from the original, so that later layers make up
    for the errors of earlier ones (He et al. 2017, "Channel Pruning").
    The statistics of BatchNorms behind converted layers move as much as they do on these pictures.
    """
    generator = torch.Generator().manual_seed(seed)
    targets = {node.name: node for node in original.graph.nodes}
    entrances = {conversion.entrance: conversion for conversion in conversions}
    before, after = Sweep(original, batches), Sweep(converted, batches)
    fits: list[Fit] = []
    for node in converted.graph.nodes:
        layer = called(converted, node)
        if node in entrances:
            conversion = entrances[node]
            given, wanted = after.inputs_of(node), before.outputs_of(targets[conversion.node])
            fits.append(_fit(conversion, given, wanted=wanted, rounds=rounds, generator=generator))
        elif fits and isinstance(layer, nn.BatchNorm2d) and layer.running_mean is not None:
            move_statistics(layer, before.inputs_of(targets[node.name]), now=after.inputs_of(node))
    return fits


def _fit(
    conversion: Conversion,
    given: Sequence[Tensor],
    *,
    wanted: Sequence[Tensor],
    rounds: int,
    generator: torch.Generator,
) -> Fit:
    geometry, pictures = conversion.depthwise[0], sum(len(batch) for batch in given)
    sampled = [
        sample_patches(geometry, x, y, count=-(-SAMPLES * len(x) // pictures), generator=generator)
        for x, y in zip(given, wanted, strict=True)
    ]
    patches, targets = (torch.cat(parts) for parts in zip(*sampled, strict=True))
    start = pair_of(conversion)
    fitted = fit_pair(patches, targets, start=start, rounds=rounds)
    variance = (targets - targets.mean(0)).square().sum().clamp(min=torch.finfo(torch.float32).tiny)
    errors = [float((pair(patches) - targets).square().sum() / variance) for pair in (start, fitted)]
    set_pair(conversion, fitted)
    return Fit(conversion.name, *errors)


@torch.no_grad()
def insert_norms(model: GraphModule, *, conversions: Sequence[Conversion], batches: Sequence[Tensor]) -> int:
    """Put a BatchNorm that changes nothing after each pair that has none, and return how many.

    Weight and bias undo the statistics, which are those of normalised pictures `(n, C, H, W)`. While training
    it keeps the activations in range; `fold_norms` removes it exactly.
    """
    sweep, found = Sweep(model, batches), []
    names = {f"{conversion.name}.pointwise": conversion for conversion in conversions}
    for node in model.graph.nodes:
        users = [called(model, user) for user in node.users]
        if node.target in names and not any(isinstance(user, nn.BatchNorm2d) for user in users):
            norm = nn.BatchNorm2d(names[node.target].pointwise.out_channels)
            mean, variance = _statistics(sweep.outputs_of(node))
            norm.get_buffer("running_mean").copy_(mean)
            norm.get_buffer("running_var").copy_(variance)
            norm.weight.copy_((norm.get_buffer("running_var") + norm.eps).sqrt())
            norm.bias.copy_(norm.get_buffer("running_mean"))
            found.append((node, norm.eval()))
    for node, norm in found:
        name = f"{names[node.target].name}.norm"
        model.set_submodule(name, norm)
        with model.graph.inserting_after(node):
            made = model.graph.call_module(name, (node,))
        node.replace_all_uses_with(made, delete_user_cb=lambda user, made=made: user is not made)
    tidy(model)
    return len(found)


def sample_patches(
    conv: nn.Conv2d, x: Tensor, y: Tensor, *, count: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Patches `(count, C, kh * kw)` of `x` `(n, C, H, W)` that `conv` sees at random positions of its output.

    With them the values `(count, O)` of `y` `(n, O, H', W')` there. All positions once where `count` exceeds
    them.
    """
    images, _, rows, columns = y.shape
    mode = "constant" if conv.padding_mode == "zeros" else conv.padding_mode
    padded = functional.pad(x, conv._reversed_padding_repeated_twice, mode=mode)
    places = torch.arange(images * rows * columns)
    if count < len(places):
        places = torch.randint(len(places), (count,), generator=generator)
    image, row, column = places // (rows * columns), places // columns % rows, places % columns
    down = row[:, None] * conv.stride[0] + torch.arange(conv.kernel_size[0]) * conv.dilation[0]
    right = column[:, None] * conv.stride[1] + torch.arange(conv.kernel_size[1]) * conv.dilation[1]
    patches = padded.permute(0, 2, 3, 1)[image[:, None, None], down[:, :, None], right[:, None, :]]
    return patches.flatten(1, 2).transpose(1, 2), y.permute(0, 2, 3, 1)[image, row, column]


def _statistics(batches: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Mean and variance `(C,)` of the values `(n, C, H, W)` in all batches, in float64."""
    count = sum(batch.numel() // batch.shape[1] for batch in batches)
    mean = torch.stack([batch.double().sum((0, 2, 3)) for batch in batches]).sum(0) / count
    squares = [(batch.double() - mean[:, None, None]).square().sum((0, 2, 3)) for batch in batches]
    return mean, torch.stack(squares).sum(0) / count


def move_statistics(norm: nn.BatchNorm2d, was: Sequence[Tensor], *, now: Sequence[Tensor]) -> None:
    """Shift the running mean and scale the running variance as the statistics of these values changed.

    The statistics themselves come from all training data and stay the base: few pictures, or synthetic ones,
    give the change well but not the statistics.
    """
    (mean_was, variance_was), (mean_now, variance_now) = _statistics(was), _statistics(now)
    mean, variance = norm.get_buffer("running_mean"), norm.get_buffer("running_var")
    mean.add_(mean_now - mean_was)
    variance.mul_(torch.where(variance_was > norm.eps, variance_now / variance_was, 1.0))
