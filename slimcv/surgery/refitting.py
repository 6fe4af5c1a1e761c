"""Layers of a changed network fitted again, one by one, to what they gave in the network it was made from."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.fx import GraphModule, Node

from slimcv.surgery.graph import called, called_once
from slimcv.surgery.moments import Moments, fit_towards, moments
from slimcv.surgery.reconstruction import SAMPLES, move_statistics, sample_patches
from slimcv.surgery.sweep import Sweep

HELD_OUT = 4
"""One batch in so many is kept to choose how near a fit stays to the weights there were."""

LARGEST = 6000
"""Layers that read more values than this keep their weights: memory and time grow with the square."""


@dataclass(frozen=True)
class Refit:
    """A layer's squared error over its target's variance, before and after it was fitted."""

    name: str
    before: float
    after: float


@torch.no_grad()
def refit(
    original: GraphModule,
    changed: GraphModule,
    *,
    layers: Collection[str],
    kept: Mapping[str, Sequence[int]],
    batches: Sequence[Tensor],
    seed: int,
) -> list[Refit]:
    """Fit the layers of these names on normalised pictures `(n, C, H, W)`, in order; both in eval mode.

    Inputs come from the changed network and targets from the original, so that later layers make up for the
    errors of earlier ones (He et al. 2017, "Channel Pruning"). `kept` are the output channels of the original
    that are left, of each layer or norm that has fewer now. The statistics of BatchNorms behind them move as
    much as they do on these pictures.
    """
    generator = torch.Generator().manual_seed(seed)
    targets = {node.name: node for node in original.graph.nodes}
    before, after = Sweep(original, batches), Sweep(changed, batches)
    found: list[Refit] = []
    for node in changed.graph.nodes:
        layer = called(changed, node)
        if node.target in layers and node.name in targets and called_once(changed, node):
            if isinstance(layer, nn.Conv2d | nn.Linear) and _values(layer) <= LARGEST:
                given = after.inputs_of(node)
                axis = 1 if isinstance(layer, nn.Conv2d) else -1
                wanted = _left(before.outputs_of(targets[node.name]), kept.get(str(node.target)), axis=axis)
                errors = _fit(changed, node, layer, given, wanted=wanted, generator=generator)
                found.append(Refit(str(node.target), *errors))
        elif found and isinstance(layer, nn.BatchNorm2d) and layer.running_mean is not None:
            was = _left(before.inputs_of(targets[node.name]), kept.get(str(node.target)), axis=1)
            move_statistics(layer, was, now=after.inputs_of(node))
    return found


def _values(layer: nn.Conv2d | nn.Linear) -> int:
    """How many values one output of the layer reads."""
    return layer.weight[0].numel()


def _left(batches: Sequence[Tensor], kept: Sequence[int] | None, *, axis: int) -> list[Tensor]:
    """The channels that are kept, which stand along `axis`: a linear layer's are always the last."""
    if kept is None:
        return list(batches)
    return [batch.index_select(axis, torch.tensor(list(kept))) for batch in batches]


def _fit(
    model: GraphModule,
    node: Node,
    layer: nn.Conv2d | nn.Linear,
    given: Sequence[Tensor],
    *,
    wanted: Sequence[Tensor],
    generator: torch.Generator,
) -> tuple[float, float]:
    """Fit one layer in place; its errors on all pictures, before and after."""
    pairs = rows_of_batches(layer, given, wanted, generator=generator)
    free = layer.bias is not None or any(
        isinstance(called(model, user), nn.BatchNorm2d) for user in node.users
    )
    groups = layer.groups if isinstance(layer, nn.Conv2d) else 1
    old = layer.weight.detach().flatten(1)
    new, totals = [], []
    for group, prior in enumerate(old.chunk(groups)):
        parts = [(_group(x, group, groups), _group(y, group, groups)) for x, y in pairs]
        means = means_of(parts) if free else (torch.zeros(()), torch.zeros(()))
        both = [moments(x.flatten(1), y, about=means) for x, y in parts]
        fitting, held_out = split(both)
        weight = fit_towards(fitting, held_out, prior=prior)
        whole = fitting if held_out is None else fitting + held_out
        totals.append((whole.error(prior), whole.error(weight), float(whole.power)))
        new.append(weight)
        if layer.bias is not None:
            rows_of = slice(group * len(prior), (group + 1) * len(prior))
            layer.bias[rows_of] = means[1] - weight @ means[0]
    layer.weight.copy_(torch.cat(new).reshape(layer.weight.shape))
    power = sum(total[2] for total in totals) or 1.0
    return (
        sum(total[0] * total[2] for total in totals) / power,
        sum(total[1] * total[2] for total in totals) / power,
    )


def rows_of_batches(
    layer: nn.Conv2d | nn.Linear,
    given: Sequence[Tensor],
    wanted: Sequence[Tensor],
    *,
    generator: torch.Generator,
) -> list[tuple[Tensor, Tensor]]:
    """What a layer reads, `(n, C, taps)`, at random positions of its output, and what is wanted there.

    One pair a batch, together some thousand positions.
    """
    pictures = sum(len(batch) for batch in given)
    return [
        _rows(layer, x, y, count=-(-SAMPLES * len(x) // pictures), generator=generator)
        for x, y in zip(given, wanted, strict=True)
    ]


def _rows(
    layer: nn.Conv2d | nn.Linear, x: Tensor, y: Tensor, *, count: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    if isinstance(layer, nn.Conv2d):
        return sample_patches(layer, x, y, count=count, generator=generator)
    x, y = x.flatten(0, -2), y.flatten(0, -2)
    if count < len(x):
        chosen = torch.randint(len(x), (count,), generator=generator)
        x, y = x[chosen], y[chosen]
    return x[:, :, None], y


def _group(values: Tensor, group: int, groups: int) -> Tensor:
    return values.chunk(groups, dim=1)[group]


def means_of(parts: Sequence[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """The means of features and targets over all parts."""
    count = sum(len(x) for x, _ in parts)
    sums = [
        torch.stack([values.flatten(1).sum(0) for values in side]).sum(0) for side in zip(*parts, strict=True)
    ]
    return sums[0] / count, sums[1] / count


def split(parts: Sequence[Moments]) -> tuple[Moments, Moments | None]:
    """The sum over most batches, and that over the ones held out."""
    held_out = parts[HELD_OUT - 1 :: HELD_OUT]
    fitting = [part for number, part in enumerate(parts) if number % HELD_OUT != HELD_OUT - 1]
    return _sum(fitting), _sum(held_out) if held_out else None


def _sum(parts: Sequence[Moments]) -> Moments:
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    return total
