"""The layers of a lifted graph by name, and their weights."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Any

from torch import nn
from torch.fx import GraphModule


def named(name: str, *, include: Sequence[str], exclude: Sequence[str]) -> bool:
    """Whether a layer's qualified name matches a glob of `include` and none of `exclude`."""
    return any(fnmatchcase(name, glob) for glob in include) and not any(
        fnmatchcase(name, glob) for glob in exclude
    )


def chosen(
    model: GraphModule, *, include: tuple[str, ...], exclude: tuple[str, ...]
) -> dict[str, nn.Parameter]:
    """Weights of convolutions and linear layers whose names match a glob of `include`, none of `exclude`."""
    found: dict[str, Any] = {}
    for name, layer in model.named_modules():
        if isinstance(layer, nn.Conv2d | nn.Linear) and named(name, include=include, exclude=exclude):
            found[f"{name}.weight"] = layer.weight
    return found
