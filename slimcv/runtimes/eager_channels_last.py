"""PyTorch itself with pictures and weights stored channel by channel for each pixel."""

from __future__ import annotations

from pathlib import Path

from slimcv.runtimes.eager import EagerModel, import_library, load_libraries, write
from slimcv.runtimes.eager import prepare as prepare_eager

__all__ = ["import_library", "load_libraries", "prepare", "write"]


def prepare(path: Path, *, threads: int) -> EagerModel:
    """Load a `.pt2`; a network saved with the precision `bf16` runs under autocast."""
    return prepare_eager(path, threads=threads, channels_last=True)
