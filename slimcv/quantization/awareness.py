"""An INT8 graph as a network that can be trained, and back: it learns to live with its own rounding.

Jacob et al. 2018, "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only
Inference": in the forward pass weights and maps are rounded as the integers will be, at the scales that
calibration found; the gradient passes the rounding as if it were not there (Bengio et al. 2013, the
straight-through estimator), and is zero where a value is clipped.
"""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch import Tensor, fx, nn

from slimcv.errors import NotApplicable
from slimcv.models import capture
from slimcv.quantization.graph import FULL, REDUCED
from slimcv.quantization.mantissa import shorten_biases


def trainable(quantized: fx.GraphModule) -> fx.GraphModule:
    """The same function with float weights at the names of the integer ones, and gradients for them.

    Raises NotApplicable for a graph that computes on integers otherwise than by layers in between.
    """
    model = capture.copy(quantized)
    low, high = REDUCED if _is_reduced(quantized) else FULL
    graph = model.graph
    replaced: dict[str, Any] = {}
    for node in list(graph.nodes):
        if _is(node, "quantize_per_tensor"):
            _round_map(graph, node)
        elif _is(node, "dequantize_per_channel"):
            weight = _Weight(model, node)
            replaced[weight.name] = nn.Parameter(weight.in_floats())
            replaced[weight.zero_name] = weight.zero.int()
            integers, scale, zero, axis = node.args[:4]
            with graph.inserting_before(node):
                rounded = graph.call_function(
                    torch.fake_quantize_per_channel_affine, (integers, scale, zero, axis, low, high)
                )
            node.replace_all_uses_with(rounded)
            graph.erase_node(node)
    parts: dict[str, Any] = {}
    for node in graph.nodes:
        if node.op == "get_attr":
            parts[str(node.target)] = replaced.get(str(node.target), _attribute(model, node))
        elif node.op == "call_module":
            parts[str(node.target)] = model.get_submodule(str(node.target))
    graph.lint()
    graph.owning_module = None
    return fx.GraphModule(parts, graph)


def stored(
    trained: fx.GraphModule, quantized: fx.GraphModule, *, mantissa_bits: int | None = None
) -> fx.GraphModule:
    """The INT8 graph with the weights and biases that were trained, the weights as integers again.

    Biases have `mantissa_bits`, where given; scales are those of `quantized`.
    """
    model = capture.copy(quantized)
    low, high = REDUCED if _is_reduced(quantized) else FULL
    learnt = dict(trained.named_parameters())
    integers = set()
    with torch.no_grad():
        for node in model.graph.nodes:
            if _is(node, "dequantize_per_channel"):
                weight = _Weight(model, node)
                levels = (learnt[weight.name] / weight.steps).round().clamp(low, high)
                weight.integers.copy_(levels.to(torch.int8))
                integers.add(weight.name)
        for name, parameter in model.named_parameters():
            if name in learnt and name not in integers:
                parameter.copy_(learnt[name])
    if mantissa_bits is not None:
        shorten_biases(model, mantissa_bits)
    return model


class _Weight:
    """The integers, scales and zero points that a node takes back to floats, channel by channel."""

    def __init__(self, model: fx.GraphModule, node: fx.Node) -> None:
        sources: list[Any] = list(node.args[:3])
        self.name, _, self.zero_name = (str(source.target) for source in sources)
        self.integers: Tensor = _attribute(model, sources[0])
        self.zero: Tensor = _attribute(model, sources[2])
        along = [-1 if axis == node.args[3] else 1 for axis in range(self.integers.ndim)]
        self.steps: Tensor = _attribute(model, sources[1]).float().view(along)

    def in_floats(self) -> Tensor:
        """What the layer computes with."""
        return self.integers.float() * self.steps


def _attribute(model: fx.GraphModule, node: fx.Node) -> Any:
    return operator.attrgetter(str(node.target))(model)


def _round_map(graph: fx.Graph, node: fx.Node) -> None:
    value, scale, zero, low, high = node.args[:5]
    with graph.inserting_before(node):
        rounded = graph.call_function(torch.fake_quantize_per_tensor_affine, (value, scale, zero, low, high))
    for user in list(node.users):
        if not _is(user, "dequantize_per_tensor"):
            raise NotApplicable(f"'{user.name}' computes on integers, which cannot be trained")
        user.replace_all_uses_with(rounded)
        graph.erase_node(user)
    graph.erase_node(node)


def _is_reduced(quantized: fx.GraphModule) -> bool:
    """A full range has its largest weight at its very end, in every channel."""
    largest = [int(t.int().abs().max()) for t in quantized.state_dict().values() if t.dtype == torch.int8]
    return max(largest, default=FULL[1]) <= -REDUCED[0]


def _is(node: Any, operation: str) -> bool:
    return isinstance(node, fx.Node) and node.op == "call_function" and f".{operation}" in f".{node.target}"
