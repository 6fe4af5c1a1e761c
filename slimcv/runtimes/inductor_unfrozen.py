"""PyTorch's compiler with weights that stay parameters, as `torch.compile` does by itself."""

from __future__ import annotations

from pathlib import Path

from slimcv.runtimes.inductor import InductorModel, import_library, load_libraries, write
from slimcv.runtimes.inductor import prepare as prepare_frozen

__all__ = ["import_library", "load_libraries", "prepare", "write"]


def prepare(path: Path, *, threads: int) -> InductorModel:
    """Load a `.pt2`, which is compiled at the first call and for few sizes of batches. Raises SlimcvError."""
    return prepare_frozen(path, threads=threads, freezing=False)
