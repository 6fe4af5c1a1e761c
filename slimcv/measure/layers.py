"""What each layer costs without running it: multiply-accumulates, parameters and the bytes of its weights."""

from __future__ import annotations

import operator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from slimcv.measure import macs

if TYPE_CHECKING:
    from torch.fx import GraphModule, Node

    from slimcv.step import InputSpec

_INTEGERS = (torch.int8, torch.uint8)


@dataclass(frozen=True)
class LayerCost:
    """One layer by its qualified name; `macs` of one picture, `bytes` of its weights as they are held."""

    name: str
    macs: int
    parameters: int
    bytes: int


def costs(model: GraphModule, input: InputSpec) -> list[LayerCost]:
    """Every layer with weights or MACs, in the order of execution.

    A layer is named as `slimcv.measure.macs.layer_name` names it. A shared weight counts where it comes
    first; weights that were folded into 8 bits count as parameters.
    """
    multiplied = macs.by_node(model, input)
    found: dict[str, LayerCost] = {}
    counted: set[int] = set()
    for node in model.graph.nodes:
        if node.op not in ("call_module", "call_function", "call_method"):
            continue
        new = [one for one in held(model, node) if is_weight(one) and id(one) not in counted]
        counted.update(map(id, new))
        cost = multiplied.get(node, 0)
        if not (new or cost):
            continue
        name = macs.layer_name(node)
        before = found.get(name, LayerCost(name, 0, 0, 0))
        found[name] = LayerCost(
            name,
            before.macs + cost,
            before.parameters + sum(tensor.numel() for tensor in new),
            before.bytes + sum(tensor.numel() * tensor.element_size() for tensor in new),
        )
    return list(found.values())


def held(model: GraphModule, node: Node) -> list[torch.Tensor]:
    """The model's own tensors that a call reads; those of a module are its parameters.

    The layer that reads a weight through its rounding to integers and back has it, not that rounding.
    """
    if origin(node).op == "get_attr":
        return []
    found: list[torch.Tensor] = []
    if node.op == "call_module":
        found += model.get_submodule(str(node.target)).parameters()
    for source in map(origin, node.all_input_nodes):
        if source.op == "get_attr":
            value = operator.attrgetter(str(source.target))(model)
            found += [value] if isinstance(value, torch.Tensor) else []
    return found


def origin(node: Node) -> Node:
    """The node whose values these are, seen through their rounding to integers and back."""
    while node.op == "call_function" and "quantize_per" in str(node.target):
        node = node.all_input_nodes[0]
    return node


def is_weight(tensor: torch.Tensor) -> bool:
    """Whether it was learnt: a parameter, or a weight that quantisation folded into 8 bits."""
    return isinstance(tensor, torch.nn.Parameter) or tensor.dtype in _INTEGERS
