"""The graph as the quantiser needs it, and what it gives back in lifted form again."""

from __future__ import annotations

import operator
from collections.abc import Callable, Collection
from typing import Any

import torch
from torch import fx, nn

aten = torch.ops.aten

FULL = (-128, 127)

REDUCED = (-64, 63)
"""Weights of 7 bits: the sum of two products with 8-bit activations, at most 2·255·64, then fits 16 bits."""

LAYERS = (aten.conv2d.default, aten.linear.default)
"""What the quantiser takes to integers."""

CONVOLUTIONS = (aten.conv2d.default, aten.conv2d.padding)
WEIGHTED = (*CONVOLUTIONS, aten.linear.default)
"""All that has weights and perhaps a bias, convolutions with padding "same" or "valid" too."""

_CONV2D_DEFAULTS: tuple[Any, ...] = (None, [1, 1], "valid", [1, 1], 1)
"""Bias, stride, padding, dilation and groups of `aten.conv2d.padding`."""

_SOURCES: dict[Any, Any] = {
    aten.conv2d: nn.Conv2d,
    aten.linear: nn.Linear,
    aten.add: operator.add,
    aten.add_: operator.add,
    aten.relu: nn.ReLU,
    aten.relu_: nn.ReLU,
    aten.relu6: nn.ReLU6,
    aten.relu6_: nn.ReLU6,
    aten.hardtanh: nn.Hardtanh,
    aten.hardtanh_: nn.Hardtanh,
    aten.hardswish: nn.Hardswish,
    aten.hardswish_: nn.Hardswish,
    aten.silu: nn.SiLU,
    aten.silu_: nn.SiLU,
    aten.leaky_relu: nn.LeakyReLU,
    aten.leaky_relu_: nn.LeakyReLU,
    aten.tanh: nn.Tanh,
    aten.gelu: nn.GELU,
}
"""What the quantiser looks for by the name of its source, and a lifted graph holds as operators."""


def weight_names(graph: fx.Graph) -> dict[str, str]:
    """The name of the weight each convolution or linear reads, by node."""
    names = {}
    for node in graph.nodes:
        if node.target in LAYERS:
            source = node.args[1]
            while source.op != "get_attr" and source.all_input_nodes:
                source = source.all_input_nodes[0]
            names[node.name] = str(source.target)
    return names


def name_sources(graph: fx.Graph) -> None:
    """Tell the quantiser which modules operators come from: it fuses conv → add → ReLU by these names alone.

    Without them residual sums stay in float and every map is written in both precisions.
    """
    for node in graph.nodes:
        if node.op == "call_function":
            source = None if node.target is aten.conv2d.padding else _SOURCES.get(_packet(node))
            node.meta["source_fn_stack"] = [(node.name, source or node.target)]


def spell_out_padding(model: fx.GraphModule) -> None:
    """Padding "same" and "valid" in numbers: only convolutions padded by numbers are quantised.

    One whose padding is not the same on both sides stays as it is, in float.
    """
    for node in model.graph.find_nodes(op="call_function", target=aten.conv2d.padding):
        data, weight, *rest = node.args
        given: list[Any] = [*rest, *_CONV2D_DEFAULTS[len(rest) :]]
        bias, stride, padding, dilation, groups = given
        kernel = weight.meta["val"].shape[2:]
        gaps = dilation if len(dilation) == 2 else [*dilation, *dilation]
        whole = [0, 0] if padding == "valid" else [gap * (k - 1) for gap, k in zip(gaps, kernel, strict=True)]
        if all(total % 2 == 0 for total in whole):
            node.target = aten.conv2d.default
            node.args = (data, weight, bias, stride, [total // 2 for total in whole], dilation, groups)


def _veiled(target: Any) -> Callable[..., Any]:
    """The same operator as a function that the quantiser does not know."""

    def call(*arguments: Any) -> Any:
        return target(*arguments)

    call.__name__ = call.__qualname__ = f"veiled_{target.overloadpacket.__name__}"
    return call


POOLS = {pool: _veiled(pool) for pool in (aten.adaptive_avg_pool2d.default, aten.avg_pool2d.default)}
"""An average would be stored at the scale of what it averages, which leaves it a few of the 256 levels."""

FLOAT_LAYERS = {layer: _veiled(layer) for layer in LAYERS}
"""A convolution or linear layer that is to stay in float."""

NORMS = {aten.batch_norm.default: _veiled(aten.batch_norm.default)}
"""Where the conversion sees a batch norm it traces 96 patterns of quantised training, which takes 20 s."""


def veil(graph: fx.Graph, names: Collection[str]) -> None:
    """Hide the layers of these names, which their weights have, from the quantiser."""
    for node in graph.nodes:
        if node.target in FLOAT_LAYERS and str(node.args[1].target).removesuffix(".weight") in names:
            node.target = FLOAT_LAYERS[node.target]


def retarget(graph: fx.Graph, targets: dict[Any, Any]) -> None:
    """Call other functions in place of these."""
    for node in graph.nodes:
        if node.op == "call_function" and node.target in targets:
            node.target = targets[node.target]


def _packet(node: fx.Node) -> Any:
    """The operator without its overload: `aten.add` for `aten.add.Tensor`."""
    return getattr(node.target, "overloadpacket", None)


def dequantizes(node: Any) -> bool:
    """Whether a node is one that takes integers back to floats."""
    return isinstance(node, fx.Node) and "dequantize_per" in str(node.target)


def lifted(converted: fx.GraphModule, weights: dict[str, str]) -> fx.GraphModule:
    """The converted graph in lifted form: called plainly, no guards, weights at the names they had."""
    graph = converted.graph
    graph.owning_module = None
    graph.set_codegen(fx.graph.CodeGen())
    retarget(graph, {veiled: target for target, veiled in (POOLS | NORMS | FLOAT_LAYERS).items()})
    output = graph.output_node()
    output.args = (torch.utils._pytree.tree_leaves(output.args)[0],)
    names = _folded_names(graph, weights)
    parts: dict[str, Any] = {}
    for node in list(graph.nodes):
        if node.op == "call_module" and str(node.target).startswith("_guards_fn"):
            graph.erase_node(node)
        elif node.op == "call_module":
            parts[node.target] = converted.get_submodule(node.target)
        elif node.op == "get_attr":
            values = operator.attrgetter(node.target)(converted)
            node.target = names.get(node.target, node.target)
            parts[node.target] = values
        elif "dequantize_per_channel" in str(node.target):
            # Weights reduced to 7 bits are ordinary int8 to whoever runs the graph.
            node.args = (*node.args[:4], *FULL, *node.args[6:])
        node.meta.clear()
    graph.lint()
    found = fx.GraphModule(parts, graph)
    found.eval()
    return found


def _folded_names(graph: fx.Graph, weights: dict[str, str]) -> dict[str, str]:
    """Better names for folded weights, their scales and zero points, by the attribute that holds them."""
    names: dict[str, str] = {}
    for node in graph.nodes:
        if node.name in weights and "dequantize_per_channel" in str(node.args[1].target):
            folded = node.args[1].args[:3]
            for source, suffix in zip(folded, ("", "_scale", "_zero_point"), strict=True):
                better = weights[node.name] + suffix
                if better not in names.values():
                    names.setdefault(source.target, better)
    return names
