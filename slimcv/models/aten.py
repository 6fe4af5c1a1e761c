"""Reading calls of ATen operators in a graph that torch.export made."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx

Arguments = dict[str, Any]


def name_of(node: fx.Node) -> str:
    """The ATen operator's name without overload; empty for anything else."""
    target = node.target
    if isinstance(target, torch._ops.OpOverload) and target.namespace == "aten":
        return target._schema.name.removeprefix("aten::")
    return ""


def arguments_of(node: fx.Node) -> Arguments:
    """The arguments of an ATen call by the names of its schema, defaults filled in."""
    schema = node.target._schema  # type: ignore[union-attr]
    values = {a.name: a.default_value for a in schema.arguments if a.has_default_value()}
    values.update({a.name: value for a, value in zip(schema.arguments, node.args, strict=False)})
    values.update(node.kwargs)
    return values


def shape_of(node: fx.Node) -> tuple[Any, ...]:
    """The shape recorded while exporting, the batch dimension symbolic; empty where none was recorded."""
    value = node.meta.get("val")
    return tuple(value.shape) if isinstance(value, Tensor) else ()


def same_size(first: Any, second: Any) -> bool:
    """Whether two dimensions are the same number or symbol, without asking torch to decide (and guard)."""
    return str(first) == str(second)


def pair(values: Any) -> tuple[int, int]:
    """Height and width of a setting given once or for both."""
    values = [values] if isinstance(values, int) else list(values)
    return (values[0], values[-1])
