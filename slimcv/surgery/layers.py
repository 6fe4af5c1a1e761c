"""The weights of a lifted graph's layers, by name."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import Any

from torch import nn
from torch.fx import GraphModule


def chosen(
    model: GraphModule, *, include: tuple[str, ...], exclude: tuple[str, ...]
) -> dict[str, nn.Parameter]:
    """Weights of convolutions and linear layers whose names match a glob of `include`, none of `exclude`."""
    found: dict[str, Any] = {}
    for name, layer in model.named_modules():
        wanted = any(fnmatchcase(name, glob) for glob in include)
        left = any(fnmatchcase(name, glob) for glob in exclude)
        if isinstance(layer, nn.Conv2d | nn.Linear) and wanted and not left:
            found[f"{name}.weight"] = layer.weight
    return found
