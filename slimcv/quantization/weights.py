"""Weights alone as integers of 8 bits or fewer, taken back to floats inside the graph: for a small file.

The exported ONNX then holds int8 initialisers and a DequantizeLinear for each; all else is computed in
floats, and no picture is needed.
"""

from __future__ import annotations

import importlib
import operator
from collections.abc import Collection
from typing import Any

import torch
from torch import Tensor, fx, nn

from slimcv.models import capture
from slimcv.quantization.bias import correct_biases
from slimcv.quantization.calibration import channel_means
from slimcv.quantization.graph import FULL
from slimcv.quantization.mantissa import shorten_biases, shortened
from slimcv.quantization.shared import shares_values
from slimcv.step import Gain

aten = torch.ops.aten

_TRIED, _NARROWEST = 80, 0.15
"""Scales tried for a channel, and the smallest of them as a share of what the largest weight needs."""


def quantize(
    model: fx.GraphModule,
    *,
    bits: int,
    per_channel: bool,
    preserve: Collection[Gain] = (),
    pictures: Tensor | None = None,
    mantissa_bits: int | None = None,
) -> tuple[fx.GraphModule, dict[str, float]]:
    """A lifted graph with its layers' weights as int8, and by layer the error of the weights, norm over norm.

    Convolutions and linear layers give way to operators that read int8 weights at the names they had; with 4
    or 2 `bits` the integers keep to that range. Scales are symmetric, so that zeros stay zero, and those of
    the least square error. On normalised `pictures` (n, channels, height, width) biases are corrected.
    Scales and biases have `mantissa_bits`, where given. `model` is left as it is.
    """
    importlib.import_module("torch.ao.quantization.fx._decomposed")  # It defines the operators.
    model = capture.deterministic(model)
    capture.set_training(model, False)
    means = {} if pictures is None else _means(model, pictures)
    errors: dict[str, float] = {}
    parts: dict[str, Any] = {}
    graph = model.graph
    graph.owning_module = None
    for node in list(graph.nodes):
        layer = model.get_submodule(str(node.target)) if node.op == "call_module" else None
        if isinstance(layer, nn.Linear) or (isinstance(layer, nn.Conv2d) and layer.padding_mode == "zeros"):
            name, weight = str(node.target), layer.weight.detach()
            alike = not per_channel or ("clusters" in preserve and shares_values(weight))
            integers, scale = rounded(weight, bits=bits, per_channel=not alike, mantissa_bits=mantissa_bits)
            lost = integers * scale.view(-1, *[1] * (weight.ndim - 1)) - weight
            errors[name] = float(lost.norm() / weight.norm().clamp(min=1e-12))
            parts |= {
                f"{name}.weight": integers,
                f"{name}.weight_scale": scale,
                f"{name}.weight_zero_point": torch.zeros(len(scale), dtype=torch.int64),
            }
            if layer.bias is not None:
                parts[f"{name}.bias"] = layer.bias
            _call_operator(graph, node, layer, means)
        elif layer is not None:
            parts[str(node.target)] = layer
    for node in graph.find_nodes(op="get_attr"):
        target = str(node.target)
        if target not in parts:
            parts[target] = operator.attrgetter(target)(model)
    graph.lint()
    quantized = fx.GraphModule(parts, graph)
    quantized.eval()
    if pictures is not None:
        correct_biases(quantized, pictures, means)
    if mantissa_bits is not None:
        shorten_biases(quantized, mantissa_bits)
    return quantized, errors


def rounded(
    weight: Tensor, *, bits: int, per_channel: bool, mantissa_bits: int | None = None
) -> tuple[Tensor, Tensor]:
    """Int8 integers and one scale for each output (the first axis), symmetric, of least square error.

    Where it is not `per_channel` all scales are the same. They have `mantissa_bits`, where given.
    """
    low, high = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    rows = weight.flatten(1) if per_channel else weight.reshape(1, -1)
    widest = (rows.abs().amax(dim=1, keepdim=True) / high).clamp(min=1e-12)
    best, least = widest, torch.full_like(widest, torch.inf)
    for factor in torch.linspace(1.0, _NARROWEST, _TRIED).tolist():
        step = widest * factor if mantissa_bits is None else shortened(widest * factor, mantissa_bits)
        error = ((rows / step).round().clamp(low, high) * step - rows).square().sum(dim=1, keepdim=True)
        best, least = torch.where(error < least, step, best), torch.minimum(error, least)
    integers = (rows / best).round().clamp(low, high).to(torch.int8).view(weight.shape).contiguous()
    return integers, best.flatten().expand(len(weight)).contiguous()


def _call_operator(
    graph: fx.Graph, node: fx.Node, layer: nn.Conv2d | nn.Linear, means: dict[str, Tensor]
) -> None:
    """The operator of the layer on weights that are taken back to floats, in the place of its call."""
    name = str(node.target)
    with graph.inserting_before(node):
        read = [graph.get_attr(f"{name}.weight{part}") for part in ("", "_scale", "_zero_point")]
        weight = graph.call_function(
            torch.ops.quantized_decomposed.dequantize_per_channel.default, (*read, 0, *FULL, torch.int8)
        )
        bias = graph.get_attr(f"{name}.bias") if layer.bias is not None else None
        if isinstance(layer, nn.Linear):
            made = graph.call_function(aten.linear.default, (node.args[0], weight, bias))
        else:
            target: Any = aten.conv2d.default
            padding: Any = list(layer.padding)
            if isinstance(layer.padding, str):
                target, padding = aten.conv2d.padding, layer.padding
            more: Any = (bias, list(layer.stride), padding, list(layer.dilation), layer.groups)
            made = graph.call_function(target, (node.args[0], weight, *more))
    if node.name in means:
        means[made.name] = means.pop(node.name)
    node.replace_all_uses_with(made)
    graph.erase_node(node)


def _means(model: fx.GraphModule, pictures: Tensor) -> dict[str, Tensor]:
    """The channel means of every convolution and linear layer in floats, by node."""
    found: dict[str, Tensor] = {}

    class Recording(fx.Interpreter):
        def run_node(self, n: fx.Node) -> Any:
            result = super().run_node(n)
            called = model.get_submodule(str(n.target)) if n.op == "call_module" else None
            if isinstance(called, nn.Conv2d | nn.Linear):
                found[n.name] = channel_means(result, convolution=isinstance(called, nn.Conv2d))
            return result

    with torch.no_grad():
        Recording(model).run(pictures)
    return found
