"""Dense layers and 1×1 convolutions as two thinner ones, with what they give on pictures kept near."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.fx import GraphModule, Node

from slimcv.surgery.graph import called, calls, tidy
from slimcv.surgery.layers import named
from slimcv.surgery.moments import Factors, factorise, fit_towards, moments, principal, rank_for, shrinkage
from slimcv.surgery.refitting import LARGEST, means_of, rows_of_batches, split
from slimcv.surgery.sweep import Sweep


@dataclass(frozen=True)
class Factorised:
    """A layer that became two: its qualified name, the rank, and the share of its outputs' variance kept."""

    name: str
    rank: int
    energy: float
    values_before: int
    values_after: int


def factorisable(
    model: GraphModule, *, include: Sequence[str], exclude: Sequence[str], convolutions: bool
) -> list[tuple[Node, nn.Conv2d | nn.Linear]]:
    """Linear layers and, with `convolutions`, ungrouped unpadded 1×1 ones; `include`, `exclude` are globs.

    A layer called more than once is left out.
    """
    found: list[tuple[Node, nn.Conv2d | nn.Linear]] = list(calls(model, nn.Linear))
    if convolutions:
        found += [(node, conv) for node, conv in calls(model, nn.Conv2d) if _pointwise(conv)]
    return [
        (node, layer) for node, layer in found if named(str(node.target), include=include, exclude=exclude)
    ]


def _pointwise(conv: nn.Conv2d) -> bool:
    unpadded = conv.padding == "valid" or not any(conv._reversed_padding_repeated_twice)
    return conv.kernel_size == (1, 1) and conv.groups == 1 and unpadded


@torch.no_grad()
def factorise_layers(
    original: GraphModule,
    model: GraphModule,
    *,
    names: Sequence[str],
    energy: float,
    rank: int | None,
    min_gain: float,
    round_to: int,
    correct: bool,
    batches: Sequence[Tensor],
    seed: int,
) -> list[Factorised]:
    """Put two layers in place of each of these, in order of execution, where that pays; both in eval mode.

    `model` is a copy of `original`. The rank is the smallest that keeps the share `energy` of the variance of
    the layer's outputs on normalised pictures `(n, C, H, W)`, or `rank`, rounded up to a multiple of
    `round_to`; a layer stays where its weights would not become fewer by the share `min_gain`. With `correct`
    a layer that does not read too many values is first fitted to the original's outputs from what it reads
    behind the layers factorised before (Zhang et al. 2015, "Accelerating Very Deep Convolutional Networks for
    Classification and Detection"). Up to the first of those that fit would give its own weight back: what it
    reads is what it read, and the principal components alone are its least-squares fit of that rank (Izenman
    1975, "Reduced-rank regression").
    """
    generator = torch.Generator().manual_seed(seed)
    targets = {node.name: node for node in original.graph.nodes}
    before, after = Sweep(original, batches), Sweep(model, batches)
    factors: dict[Node, tuple[Factors, Tensor | None]] = {}
    found: list[Factorised] = []
    for node in list(model.graph.nodes):
        layer = called(model, node)
        if node.target not in names or not isinstance(layer, nn.Conv2d | nn.Linear):
            continue
        given, wanted = after.inputs_of(node), before.outputs_of(targets[node.name])
        pairs = rows_of_batches(layer, given, wanted, generator=generator)
        about = means_of(pairs) if layer.bias is not None else (torch.zeros(()), torch.zeros(()))
        weight = layer.weight.detach().flatten(1)
        if correct and found and weight.shape[1] <= LARGEST:
            parts = [moments(x.flatten(1), y, about=about) for x, y in pairs]
            weight = fit_towards(*split(parts), prior=weight)
        features = torch.cat([x.flatten(1) for x, _ in pairs]) - about[0]
        directions, shares = principal(weight, features, shrinkage=shrinkage(features))
        wanted_rank = rank or rank_for(shares, energy)
        chosen = -(-wanted_rank // round_to) * round_to
        size = chosen * (weight.shape[0] + weight.shape[1])
        if size > (1 - min_gain) * weight.numel():
            continue
        made = factorise(weight, directions, shares, rank=chosen)
        bias = layer.bias
        if bias is not None:
            # The mean of the outputs is kept although the factors keep only a part of what varies.
            bias = about[1] - made.expand @ (made.reduce @ about[0])
        layer.weight.copy_((made.expand @ made.reduce).reshape(layer.weight.shape))
        if layer.bias is not None and bias is not None:
            layer.bias.copy_(bias)
        factors[node] = (made, bias)
        found.append(Factorised(str(node.target), chosen, made.energy, weight.numel(), size))
    for node, (made, bias) in factors.items():
        _replace(model, node, made, bias)
    if found:
        tidy(model)
    return found


def _replace(model: GraphModule, node: Node, made: Factors, bias: Tensor | None) -> None:
    """Calls of `<name>.reduce` and `<name>.expand` in place of the one layer's."""
    name = str(node.target)
    layer = model.get_submodule(name)
    rank, inputs = made.reduce.shape
    outputs = len(made.expand)
    reduce: nn.Module
    expand: nn.Module
    if isinstance(layer, nn.Conv2d):
        stride = (layer.stride[0], layer.stride[-1])
        reduce = nn.Conv2d(inputs, rank, 1, stride=stride, bias=False)
        expand = nn.Conv2d(rank, outputs, 1, bias=bias is not None)
    else:
        reduce = nn.Linear(inputs, rank, bias=False)
        expand = nn.Linear(rank, outputs, bias=bias is not None)
    for part, weight in ((reduce, made.reduce), (expand, made.expand)):
        part.get_parameter("weight").copy_(weight.reshape(part.get_parameter("weight").shape))
    if bias is not None:
        expand.get_parameter("bias").copy_(bias)
    container = nn.Sequential(OrderedDict(reduce=reduce, expand=expand))
    container.train(layer.training)
    model.set_submodule(name, container)
    with model.graph.inserting_before(node):
        between = model.graph.call_module(f"{name}.reduce", (node.args[0],))
        last = model.graph.call_module(f"{name}.expand", (between,))
    node.replace_all_uses_with(last)
    model.graph.erase_node(node)
