"""Dense convolutions as depthwise + pointwise pairs that carry the trained weights over."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.fx import GraphModule, Node

from slimcv.surgery.graph import aten, calls, tidy
from slimcv.surgery.layers import named
from slimcv.surgery.least_squares import Pair


@dataclass(frozen=True)
class Conversion:
    """A convolution that became a pair: its qualified name, the node that called it, what is there now."""

    name: str
    node: str
    entrance: Node
    depthwise: tuple[nn.Conv2d, ...]
    pointwise: nn.Conv2d


def decouple(weight: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """Depthwise kernels `(r, C, kh, kw)` and pointwise weights `(O, r, C)` for a weight `(O, C, kh, kw)`.

    For each input channel the best rank-r factors by singular value decomposition (Guo et al. 2018, "Network
    Decoupling", arXiv 1808.05517); with r = min(O, kh * kw) their product is the dense weight. Kernels have
    length 1 and a sum that is not negative.
    """
    outputs, channels, height, width = weight.shape
    left, singular, right = torch.linalg.svd(
        weight.detach().double().permute(1, 0, 2, 3).reshape(channels, outputs, -1), full_matrices=False
    )
    kernels = right[:, :rank].transpose(0, 1)
    sign = torch.where(kernels.sum(2, keepdim=True) < 0, -1.0, 1.0)
    pointwise = (left[:, :, :rank] * singular[:, None, :rank]).permute(1, 2, 0) * sign.squeeze(2)
    depthwise = (kernels * sign).reshape(-1, channels, height, width)
    return depthwise.to(weight.dtype), pointwise.to(weight.dtype)


def convertible(
    model: GraphModule, *, rank: int, min_channels: int, include: Sequence[str], exclude: Sequence[str]
) -> list[tuple[Node, nn.Conv2d]]:
    """The dense k×k convolutions that a pair of this rank does with fewer MACs, in order of execution.

    `include` and `exclude` are globs on qualified names. A convolution called more than once is left out.
    """
    found = []
    for node, conv in calls(model, nn.Conv2d):
        name, taps = str(node.target), conv.kernel_size[0] * conv.kernel_size[1]
        dense = conv.groups == 1 and taps > 1 and conv.in_channels >= min_channels
        cheaper = min(rank, taps) * (taps + conv.out_channels) < conv.out_channels * taps
        if dense and cheaper and named(name, include=include, exclude=exclude):
            found.append((node, conv))
    return found


def make_separable(model: GraphModule, nodes: Sequence[Node], *, rank: int) -> list[Conversion]:
    """Put `rank` parallel depthwise convolutions and a pointwise one in place of each that `nodes` call.

    They stand at `<name>.depthwise` (`.depthwise.0` … from rank 2 on, concatenated) and `<name>.pointwise`.
    """
    conversions = [_separate(model, node, rank=rank) for node in nodes]
    tidy(model)
    return conversions


def _separate(model: GraphModule, node: Node, *, rank: int) -> Conversion:
    name = str(node.target)
    conv = model.get_submodule(name)
    if not isinstance(conv, nn.Conv2d):
        raise TypeError(f"'{name}' is no convolution")
    kernels, weights = decouple(conv.weight, rank)
    depthwise = [_depthwise(conv, kernel) for kernel in kernels]
    pointwise = nn.Conv2d(len(kernels) * conv.in_channels, conv.out_channels, 1)
    bias = torch.zeros(conv.out_channels) if conv.bias is None else conv.bias.detach().clone()
    pointwise.weight = nn.Parameter(weights.flatten(1)[:, :, None, None].contiguous())
    pointwise.bias = nn.Parameter(bias)
    first: nn.Module = depthwise[0] if len(depthwise) == 1 else nn.ModuleList(depthwise)
    container = nn.Sequential(OrderedDict(depthwise=first, pointwise=pointwise))
    container.train(conv.training)
    model.set_submodule(name, container)
    entrance = _rewire(model, node, name=name, rank=len(depthwise))
    return Conversion(name, node.name, entrance, tuple(depthwise), pointwise)


def _depthwise(conv: nn.Conv2d, kernel: Tensor) -> nn.Conv2d:
    channels = conv.in_channels
    made = nn.Conv2d(
        channels,
        channels,
        _both(conv.kernel_size),
        _both(conv.stride),
        conv.padding if isinstance(conv.padding, str) else _both(conv.padding),
        _both(conv.dilation),
        groups=channels,
        bias=False,
        padding_mode=conv.padding_mode,
    )
    made.weight = nn.Parameter(kernel[:, None].contiguous())
    return made


def _rewire(model: GraphModule, node: Node, *, name: str, rank: int) -> Node:
    """Calls of the pair's modules in place of `node`; the first of them."""
    graph, given = model.graph, (node.args[0],)
    with graph.inserting_before(node):
        if rank == 1:
            entrance = between = graph.call_module(f"{name}.depthwise", given)
        else:
            parts = [graph.call_module(f"{name}.depthwise.{number}", given) for number in range(rank)]
            entrance, between = parts[0], graph.call_function(aten.cat.default, (parts, 1))
        pointwise = graph.call_module(f"{name}.pointwise", (between,))
    node.replace_all_uses_with(pointwise)
    graph.erase_node(node)
    return entrance


def _both(values: Sequence[int]) -> tuple[int, int]:
    return (values[0], values[-1])


def pair_of(conversion: Conversion) -> Pair:
    """The weights of a conversion, for fitting."""
    kernels = torch.stack([conv.weight.detach()[:, 0].flatten(1) for conv in conversion.depthwise])
    weight = conversion.pointwise.weight.detach().reshape(-1, *kernels.shape[:2])
    bias = conversion.pointwise.bias
    return Pair(kernels, weight, torch.zeros(len(weight)) if bias is None else bias.detach())


@torch.no_grad()
def set_pair(conversion: Conversion, pair: Pair) -> None:
    """Write fitted weights into a conversion's modules."""
    for conv, kernel in zip(conversion.depthwise, pair.depthwise, strict=True):
        conv.weight.copy_(kernel.reshape(conv.weight.shape))
    conversion.pointwise.weight.copy_(pair.pointwise.reshape(conversion.pointwise.weight.shape))
    if conversion.pointwise.bias is not None:
        conversion.pointwise.bias.copy_(pair.bias)
