"""What each layer costs without running it: multiply-accumulates, parameters and the bytes of its weights."""

from __future__ import annotations

from collections.abc import Iterator
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
        new = [tensor for tensor in _weights(model, node) if id(tensor) not in counted]
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


def _weights(model: GraphModule, node: Node) -> Iterator[torch.Tensor]:
    """What a node multiplies or adds that was learnt, seen through the dequantisation of folded weights."""
    if node.op == "call_module":
        yield from model.get_submodule(str(node.target)).parameters()
        return
    for source in node.all_input_nodes:
        while source.op == "call_function" and "dequantize_per" in str(source.target):
            source = source.all_input_nodes[0]
        if source.op == "get_attr":
            value: object = model
            for part in str(source.target).split("."):
                value = getattr(value, part)
            if isinstance(value, torch.Tensor) and _is_weight(value):
                yield value


def _is_weight(tensor: torch.Tensor) -> bool:
    return isinstance(tensor, torch.nn.Parameter) or tensor.dtype in _INTEGERS
