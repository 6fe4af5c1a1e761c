"""Folding BatchNorm into the layers around it: exactly, or up to the border of a padded convolution."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.fx import GraphModule, Node

from slimcv.models import capture
from slimcv.step import InputSpec
from slimcv.surgery.graph import (
    COPIES,
    RESHAPES,
    Shapes,
    aten,
    called,
    called_once,
    calls,
    erase_unused,
    is_dropout,
    source,
    tidy,
)

BatchNorm = nn.modules.batchnorm._BatchNorm

_MOST_NOISE = 4.0
"""Times the noise that weights of 8 bits may add after folding: that of one bit less."""


@dataclass(frozen=True)
class Affine:
    """`scale * x + shift` for each channel, in float64."""

    scale: Tensor
    shift: Tensor


@dataclass(frozen=True)
class Consumer:
    """A layer an affine can be folded into; each channel stands `repeat` times in a row in its input."""

    node: Node
    layer: nn.Conv2d | nn.Linear
    repeat: int


def fold_norms(model: GraphModule, input: InputSpec) -> int:
    """Fold every BatchNorm that can be folded exactly (eval mode) and remove it; the number removed.

    Backward into the convolution or linear before it, forward into all that read it where no zero padding and
    no nonlinearity stands between, and where weights of 8 bits would still bear it (`_keeps_bits`). The
    outputs stay as they were up to rounding.
    """
    return _fold(model, input, exact=True, backward=True)


def absorb_norms(model: GraphModule, input: InputSpec) -> int:
    """Fold forward every BatchNorm with no layer just before it, as though nothing were padded.

    Returns their number. A shift does not cross zero padding, so the outputs change where a kernel reaches
    over the border; training repairs that. Norms that fold backward exactly are left: they help training
    and cost nothing once `fold_norms` has run.
    """
    return _fold(model, input, exact=False, backward=False)


def norms_left(model: GraphModule) -> int:
    """How many BatchNorm calls the graph still makes."""
    return sum(isinstance(called(model, node), BatchNorm) for node in model.graph.nodes)


def _fold(model: GraphModule, input: InputSpec, *, exact: bool, backward: bool) -> int:
    if not norms_left(model):
        return 0
    shapes = capture.shapes(model, input)
    folded = 0
    for kind in (nn.BatchNorm2d, nn.BatchNorm1d):
        for node, norm in calls(model, kind):
            affine = affine_of(norm)
            if affine is None or len(shapes[node.name]) != (4 if kind is nn.BatchNorm2d else 2):
                continue
            before = _layer_before(model, node, affine=affine, shapes=shapes)
            if before is not None and backward:
                _fold_backward(before, affine)
            elif before is None or backward:
                consumers = _consumers(model, node, affine=affine, shapes=shapes, exact=exact)
                if not consumers or (exact and not _keeps_bits(norm, affine, consumers)):
                    continue
                for consumer in consumers:
                    _fold_forward(model, consumer, affine=affine, shapes=shapes)
            else:
                continue
            _remove(model, node)
            folded += 1
    if folded:
        tidy(model)
    return folded


def _remove(model: GraphModule, node: Node) -> None:
    before = source(node)
    if before is not None:
        node.replace_all_uses_with(before)
        erase_unused(model, node)


def affine_of(norm: BatchNorm) -> Affine | None:
    """What a BatchNorm does in eval mode, or None where it has no running statistics."""
    if norm.running_mean is None or norm.running_var is None:
        return None
    scale = (norm.running_var.double() + norm.eps).rsqrt()
    if norm.weight is not None:
        scale = scale * norm.weight.detach().double()
    shift = -norm.running_mean.double() * scale
    if norm.bias is not None:
        shift = shift + norm.bias.detach().double()
    return Affine(scale, shift)


def _layer_before(model: GraphModule, node: Node, *, affine: Affine, shapes: Shapes) -> nn.Module | None:
    """The convolution or linear whose output only this norm sees, across operations that commute with it."""
    before = source(node)
    while before is not None and len(before.users) == 1:
        layer = called(model, before)
        if isinstance(layer, nn.Conv2d | nn.Linear):
            fits = isinstance(layer, nn.Conv2d) or len(shapes[before.name]) == 2
            return layer if fits and called_once(model, before) else None
        if not _commutes(model, before, affine=affine, shapes=shapes) or before.target in RESHAPES:
            return None
        before = source(before)
    return None


def _commutes(model: GraphModule, node: Node, *, affine: Affine, shapes: Shapes) -> bool:
    """Whether a per-channel affine may be moved across this node, in eval mode."""
    if node.target in COPIES or is_dropout(model, node) or node.target == aten.adaptive_avg_pool2d.default:
        return True
    if node.target == aten.max_pool2d.default:
        return bool((affine.scale >= 0).all())
    if node.target == aten.avg_pool2d.default:
        padding, counted, divisor = _argument(node, 3, 0), _argument(node, 5, True), _argument(node, 6, None)
        return divisor is None and (not counted or padding in (0, [0], [0, 0]))
    if node.target == aten.mean.dim:
        return {dim % 4 for dim in _dims(node)} == {2, 3} and len(shapes[node.all_input_nodes[0].name]) == 4
    if node.target in RESHAPES:
        given, made = shapes[node.all_input_nodes[0].name], shapes[node.name]
        return len(made) == 2 and made[0] == given[0]
    return False


def _argument(node: Node, position: int, default: object) -> object:
    return node.args[position] if len(node.args) > position else default


def _dims(node: Node) -> list[int]:
    dims = _argument(node, 1, ())
    return [dim for dim in dims if isinstance(dim, int)] if isinstance(dims, list | tuple) else []


def _consumers(
    model: GraphModule, node: Node, *, affine: Affine, shapes: Shapes, exact: bool, repeat: int = 1
) -> list[Consumer]:
    """All layers that read this node's output across commuting operations; empty where one reader is none."""
    found: list[Consumer] = []
    for user in node.users:
        layer = called(model, user)
        if user.all_input_nodes != [node]:
            return []
        if isinstance(layer, nn.Conv2d) and called_once(model, user):
            if exact and not _crosses(layer, affine.shift):
                return []
            found.append(Consumer(user, layer, 1))
        elif isinstance(layer, nn.Linear) and called_once(model, user) and len(shapes[node.name]) == 2:
            found.append(Consumer(user, layer, repeat))
        elif _commutes(model, user, affine=affine, shapes=shapes):
            wider = repeat
            if user.target in RESHAPES and len(shapes[node.name]) == 4:
                wider = shapes[node.name][2] * shapes[node.name][3]
            beyond = _consumers(model, user, affine=affine, shapes=shapes, exact=exact, repeat=wider)
            if not beyond:
                return []
            found += beyond
        else:
            return []
    return found


def _keeps_bits(norm: BatchNorm, affine: Affine, consumers: Sequence[Consumer]) -> bool:
    """Whether the layers, quantised later on, would lose no more than a bit by being scaled by channel.

    A norm evens out its channels, and folding it puts their differences into the weights, where one output's
    share a scale: those of weak channels lose their bits (Nagel et al., ICCV 2019, section 3). Noise is that
    of a uniform quantiser, a step²/12 for each weight, times the squares of what the weight multiplies, which
    the norm's own statistics tell.
    """
    mean, var = norm.get_buffer("running_mean").double(), norm.get_buffer("running_var").double()
    squares = var + mean.square()
    normed = affine.scale.square() * var + (affine.scale * mean + affine.shift).square()
    folded = left = 0.0
    for consumer in consumers:
        largest = _grouped(consumer.layer).detach().abs().amax(3)
        scale, before, after = (
            part.repeat_interleave(consumer.repeat).reshape(len(largest), 1, -1)
            for part in (affine.scale, squares, normed)
        )
        folded += _noise(largest * scale.abs(), before)
        left += _noise(largest, after)
    return folded <= _MOST_NOISE * left


def _noise(largest: Tensor, squares: Tensor) -> float:
    """Of the largest weights (groups, outputs, inputs) and their inputs' mean squares (groups, 1, inputs)."""
    return float((largest.amax(2).square() * squares.sum(2)).sum())


def _grouped(layer: nn.Conv2d | nn.Linear) -> Tensor:
    """The weights as (groups, outputs of each, inputs of each, taps)."""
    groups = layer.groups if isinstance(layer, nn.Conv2d) else 1
    return layer.weight.reshape(groups, layer.weight.shape[0] // groups, layer.weight.shape[1], -1)


def _crosses(conv: nn.Conv2d, shift: Tensor) -> bool:
    """Whether a shift before this convolution is one after it also where a kernel reaches over the border."""
    unpadded = conv.padding == "valid" or not any(conv._reversed_padding_repeated_twice)
    return unpadded or conv.padding_mode != "zeros" or not bool(shift.any())


@torch.no_grad()
def _fold_backward(layer: nn.Module, affine: Affine) -> None:
    weight = layer.get_parameter("weight")
    scale = affine.scale.reshape(-1, *[1] * (weight.dim() - 1))
    bias = layer.bias.double() * affine.scale if isinstance(layer.bias, Tensor) else 0.0
    layer.bias = nn.Parameter((bias + affine.shift).to(weight.dtype))
    layer.weight = nn.Parameter((weight.double() * scale).to(weight.dtype))


@torch.no_grad()
def _fold_forward(model: GraphModule, consumer: Consumer, *, affine: Affine, shapes: Shapes) -> None:
    layer = consumer.layer
    scale, shift = (part.repeat_interleave(consumer.repeat) for part in (affine.scale, affine.shift))
    grouped = _grouped(layer).double()
    added = torch.einsum("goik,gi->go", grouped, shift.reshape(len(grouped), -1)).flatten()
    scaled = grouped * scale.reshape(len(grouped), 1, -1, 1)
    layer.weight = nn.Parameter(scaled.reshape(layer.weight.shape).to(layer.weight.dtype))
    _add_bias(model, consumer.node, layer=layer, added=added, shapes=shapes)


def _add_bias(
    model: GraphModule, node: Node, *, layer: nn.Conv2d | nn.Linear, added: Tensor, shapes: Shapes
) -> None:
    """Add to a layer's bias; where it has none, to the next layers where that is exact (a depthwise pair)."""
    if not bool(added.any()):
        return
    if layer.bias is None:
        onward = Affine(torch.ones_like(added), added)
        consumers = _consumers(model, node, affine=onward, shapes=shapes, exact=True)
        for consumer in consumers:
            _fold_forward(model, consumer, affine=onward, shapes=shapes)
        if consumers:
            return
        layer.bias = nn.Parameter(added.to(layer.weight.dtype))
    else:
        layer.bias = nn.Parameter((layer.bias.double() + added).to(layer.bias.dtype))
