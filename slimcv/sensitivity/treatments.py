"""What can be done to one layer alone, each as the step of that name does it."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn

from slimcv import surgery
from slimcv.errors import NotApplicable
from slimcv.sensitivity.effects import Effect, effect
from slimcv.sensitivity.integers import Rounded
from slimcv.sensitivity.walk import Layer, Walk
from slimcv.surgery import magnitude, sharing

_PRUNED, _CLUSTERS = 0.5, 16
_REFINE = 2
"""Rounds of fitting, as the step's default."""


@dataclass(frozen=True)
class Changed:
    """What stands in the place of a layer, the tensors that a file holds of it, and how it is timed.

    `timed` makes of the layer's real input (1, …) a call to time; None where the treated layer takes as long
    as the original by construction.
    """

    module: nn.Module
    stored: tuple[Tensor, ...]
    timed: Callable[[Tensor], Callable[[], Any]] | None


@dataclass(frozen=True)
class Treatment:
    """One change of a layer.

    `apply` gets the layer, which it leaves alone, the layer's inputs on pictures to fit on, and a seed; it
    raises NotApplicable with the reason. `same_time` says why it saves no time. `restructures` puts other
    layers in the place of one, which must then be called once.
    """

    key: str
    title: str
    says: str
    apply: Callable[[Layer, Sequence[Tensor], int], Changed]
    same_time: str | None = None
    restructures: bool = False

    def change(self, walk: Walk, node: fx.Node, layer: Layer, *, seed: int) -> Changed:
        """The layer changed, fitted on what it reads in the walk. Raises NotApplicable."""
        if self.restructures and not walk.called_once(node):
            raise NotApplicable("the layer is called more than once")
        with torch.no_grad():
            return self.apply(layer, walk.given(node), seed)


def measured(
    walk: Walk, node: fx.Node, layer: Layer, treatment: Treatment, *, labels: Tensor | None, seed: int
) -> tuple[Changed, Effect]:
    """The layer changed, and what that does to the outputs. Raises NotApplicable."""
    changed = treatment.change(walk, node, layer, seed=seed)
    return changed, effect(walk.outputs_with(node, changed.module), walk.expected, labels)


def treatments(*, levels: int) -> tuple[Treatment, ...]:
    """All of them; weights of 8-bit integers take -levels-1 … levels steps."""
    return (int8(levels), prune(), cluster(), low_rank(), separable())


def int8(levels: int) -> Treatment:
    """The layer's weights and what it reads become 8-bit integers."""

    def apply(layer: Layer, given: Sequence[Tensor], _: int) -> Changed:
        rounded = Rounded(layer, given, levels=levels)
        integers, scale = rounded.integers, rounded.scale
        return Changed(rounded, (integers, scale, *_bias(layer)), rounded.kernel)

    says = "weights and what the layer reads in 8 bits, a scale for each output channel and one for the input"
    return Treatment("int8", "INT8", says, apply)


def prune() -> Treatment:
    """Half of the weights become zero, those of the smallest magnitude."""

    def apply(layer: Layer, _given: Sequence[Tensor], _seed: int) -> Changed:
        pruned = _copy(layer)
        magnitude.prune([pruned.weight.data], share=_PRUNED, block=(1, 1), together=False)
        return Changed(pruned, _stored(pruned), None)

    same = "none by construction: runtimes multiply by zeros as by other numbers"
    return Treatment("prune_50", "prune 50 %", "half of the weights become zero", apply, same)


def cluster() -> Treatment:
    """Weights share 16 values."""

    def apply(layer: Layer, _: Sequence[Tensor], seed: int) -> Changed:
        shared = _copy(layer)
        made = sharing.share(shared.weight.data, _CLUSTERS, initial="density", keep_zeros=True, seed=seed)
        if not made:
            raise NotApplicable(f"the layer has too few weights for {_CLUSTERS} values")
        return Changed(shared, _stored(shared), None)

    same = "none by construction: runtimes compute with shared values as with others"
    return Treatment("cluster_16", "cluster 16", "the weights share 16 values", apply, same)


def low_rank() -> Treatment:
    """Two layers of half the rank in the place of one."""

    def apply(layer: Layer, given: Sequence[Tensor], seed: int) -> Changed:
        model, changed = _alone(layer), _alone(layer)
        if not surgery.factorisable(changed, include=("*",), exclude=(), convolutions=True):
            raise NotApplicable("only dense layers and unpadded 1×1 convolutions without groups have a rank")
        outputs, inputs = layer.weight.flatten(1).shape
        rank = max(1, min(outputs, inputs) // 2)
        if rank * (outputs + inputs) >= outputs * inputs:
            raise NotApplicable("at half its rank the layer has no fewer weights")
        surgery.factorise_layers(
            model, changed, names=["layer"], energy=1.0, rank=rank, min_gain=0.0, round_to=1, correct=False,
            batches=given, seed=seed,
        )  # fmt: skip
        return _restructured(changed)

    says = "two layers of half the rank, by the principal components of the outputs"
    return Treatment("rank_half", "rank ½", says, apply, restructures=True)


def separable() -> Treatment:
    """A depthwise and a pointwise convolution in the place of a dense one."""

    def apply(layer: Layer, given: Sequence[Tensor], seed: int) -> Changed:
        model, changed = _alone(layer), _alone(layer)
        found = surgery.convertible(changed, rank=1, min_channels=1, include=("*",), exclude=())
        if not found:
            raise NotApplicable(_not_separable(layer))
        conversions = surgery.make_separable(changed, [node for node, _ in found], rank=1)
        surgery.reconstruct(model, changed, conversions=conversions, batches=given, rounds=_REFINE, seed=seed)
        return _restructured(changed)

    says = "a depthwise and a pointwise convolution, fitted to the outputs"
    return Treatment("depthwise_separable", "separable", says, apply, restructures=True)


def _not_separable(layer: Layer) -> str:
    if isinstance(layer, nn.Linear):
        return "a dense layer is no convolution"
    if layer.groups > 1:
        return "the convolution has groups already"
    if layer.kernel_size == (1, 1):
        return "a 1×1 convolution is pointwise already"
    return "a depthwise and a pointwise convolution would take no fewer MACs"


def _restructured(changed: fx.GraphModule) -> Changed:
    module = changed.get_submodule("layer").eval()

    def timed(x: Tensor) -> Callable[[], Any]:
        return lambda: module(x)

    return Changed(module, _stored(module), timed)


def _alone(layer: Layer) -> fx.GraphModule:
    """A lifted graph of nothing but a copy of the layer."""
    graph = fx.Graph()
    graph.output(graph.call_module("layer", (graph.placeholder("x"),)))
    return fx.GraphModule({"layer": _copy(layer)}, graph).eval()


def _copy(layer: Layer) -> Layer:
    return copy.deepcopy(layer).eval()


def _stored(module: nn.Module) -> tuple[Tensor, ...]:
    return tuple(parameter.detach() for parameter in module.parameters())


def _bias(layer: Layer) -> tuple[Tensor, ...]:
    return () if layer.bias is None else (layer.bias.detach(),)
