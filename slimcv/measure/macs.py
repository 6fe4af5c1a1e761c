"""Multiply-accumulates of one input: convolutions, linears, matrix products and attention."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx import Interpreter
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

if TYPE_CHECKING:
    from torch.fx import GraphModule, Node

    from slimcv.step import InputSpec

_SUM_FIRST = frozenset({"addmm", "baddbmm"})
"""Operators whose first argument is added to the product of the two after it."""

_SAME_VALUES = frozenset({"t", "transpose", "permute", "contiguous", "detach", "clone", "alias"})

_INTEGERS = (torch.int8, torch.uint8)


def count(model: GraphModule, input: InputSpec) -> int:
    """MACs of one picture; a MAC is one multiplication and one addition, so half of what is called FLOPs."""
    return sum(by_node(model, input).values())


def by_layer(model: GraphModule, input: InputSpec) -> dict[str, int]:
    """MACs by qualified name, in the order of execution; layers without any are left out.

    A layer is named by its module or by the module that owns its weight, other operators by their node in the
    graph.
    """
    layers: dict[str, int] = {}
    for node, macs in by_node(model, input).items():
        name = layer_name(node)
        layers[name] = layers.get(name, 0) + macs
    return layers


def by_node(model: GraphModule, input: InputSpec) -> dict[Node, int]:
    """MACs of every node that has any. Shapes are followed without computing or changing anything."""
    modes = {part: part.training for part in model.modules()}
    counter = _Counter(model)
    # The CPU's own attention kernel is unknown to torch's counter; its plain form is two matrix products.
    plain_attention = sdpa_kernel(SDPBackend.MATH)
    try:
        for part in modes:
            part.training = False
        with FakeTensorMode(allow_non_fake_inputs=True), torch.no_grad(), plain_attention:
            counter.run(torch.empty(1, *input.shape))
    finally:
        for part, mode in modes.items():
            part.training = mode
    return counter.macs


def int8_share(model: GraphModule, input: InputSpec) -> float:
    """The fraction (0 to 1) of all MACs whose two operands are 8-bit integers.

    That is what the graph asks for; a runtime may still decide otherwise
    (`runtimes.openvino.executed_precisions`).
    """
    macs = by_node(model, input)
    integers = sum(cost for node, cost in macs.items() if on_integers(node))
    return integers / sum(macs.values()) if macs else 0.0


def on_integers(node: Node) -> bool:
    """Whether an operator that multiplies takes 8-bit integers on both sides."""
    return all(map(_from_integers, _operands(node)))


def layer_name(node: Node) -> str:
    """Qualified name of the module a node is, or whose weight or bias it reads; else the name of the node."""
    if node.op == "call_module":
        return str(node.target)
    # A folded 8-bit weight has lost its name, the bias beside it has not.
    owners = [_weight_name(operand) for operand in node.all_input_nodes[1:]]
    return next((name.rpartition(".")[0] for name in owners if "." in name), node.name)


class _Counter(Interpreter):
    """Runs a graph on shapes alone and counts node by node."""

    def __init__(self, model: GraphModule) -> None:
        super().__init__(model)
        self.macs: dict[Node, int] = {}

    def run_node(self, n: Node) -> Any:
        """One node and its cost. The guards of torch.export are about its example batch, not this one."""
        if n.op == "call_module" and n.target == "_guards_fn":
            return None
        if n.op not in ("call_module", "call_function", "call_method"):
            return super().run_node(n)
        with FlopCounterMode(display=False) as flops:
            result = super().run_node(n)
        if flops.get_total_flops():
            self.macs[n] = flops.get_total_flops() // 2
        return result


def _operator(node: Node) -> str:
    """`conv2d` for `aten.conv2d.default`."""
    return str(node.target).removeprefix("aten.").partition(".")[0]


def _operands(node: Node) -> list[Node | None]:
    """What is multiplied, activation and weight for instance; a module keeps its float weight to itself."""
    if node.op == "call_module":
        return [None]
    first = 1 if _operator(node) in _SUM_FIRST else 0
    return [arg if isinstance(arg, torch.fx.Node) else None for arg in node.args[first : first + 2]]


def _from_integers(operand: Node | None) -> bool:
    """Whether a value is an 8-bit integer and its scale, seen through changes of layout."""
    while operand is not None and operand.op == "call_function" and _operator(operand) in _SAME_VALUES:
        operand = operand.all_input_nodes[0]
    return (
        operand is not None
        and "dequantize_per" in str(operand.target)
        and any(d in operand.args for d in _INTEGERS)
    )


def _weight_name(operand: Node | None) -> str:
    """The name an operand has in the state dict, seen through quantisation and layout; else empty."""
    while operand is not None and operand.op == "call_function" and operand.all_input_nodes:
        operand = operand.all_input_nodes[0]
    return str(operand.target) if operand is not None and operand.op == "get_attr" else ""
