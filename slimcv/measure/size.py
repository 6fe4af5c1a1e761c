"""How large a model is: its parameters, its float buffers, and the bytes of its file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn


def parameters(model: nn.Module) -> int:
    """Weights and biases. In an INT8 graph a folded 8-bit weight counts as the float weight it replaced."""
    import torch

    folded = sum(b.numel() for b in model.buffers() if b.dtype in (torch.int8, torch.uint8))
    used = _read_by_graph(model) if folded else None
    counted = (p.numel() for name, p in model.named_parameters() if used is None or name in used)
    return folded + sum(counted)


def buffers(model: nn.Module) -> int:
    """Elements of the float buffers: running means and variances, scales. Counters are left out."""
    return sum(buffer.numel() for buffer in model.buffers() if buffer.is_floating_point())


def artifact_files(path: Path) -> tuple[Path, ...]:
    """The files an artifact consists of: those of a folder, or the file and the `.bin` of a `.xml`."""
    if path.is_dir():
        return tuple(sorted(file for file in path.rglob("*") if file.is_file()))
    weights = path.with_suffix(".bin")
    return (path, weights) if path.suffix == ".xml" and weights.is_file() else (path,)


def artifact_bytes(path: Path) -> int:
    """Bytes on disk of an artifact, all its files together."""
    return sum(file.stat().st_size for file in artifact_files(path))


def _read_by_graph(model: nn.Module) -> set[str] | None:
    """Names of the parameters a graph reads; quantisation leaves the float weights behind unread."""
    from torch.fx import GraphModule

    if not isinstance(model, GraphModule):
        return None
    names = {str(node.target) for node in model.graph.nodes if node.op == "get_attr"}
    for node in model.graph.nodes:
        if node.op == "call_module":
            module = model.get_submodule(str(node.target))
            names |= {f"{node.target}.{name}" for name, _ in module.named_parameters()}
    return names
