"""slimcv makes a trained PyTorch vision model small and fast on a CPU, and proves it by measurement."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from slimcv.api import optimize as optimize
    from slimcv.serving import load as load

__version__ = "0.1.0"

_PLACES = {"load": "slimcv.serving", "optimize": "slimcv.api"}


def __getattr__(name: str) -> Any:
    """`load` and `optimize`, imported when they are first asked for: neither numpy nor torch before."""
    if name not in _PLACES:
        raise AttributeError(f"module 'slimcv' has no attribute '{name}'")
    import importlib

    return getattr(importlib.import_module(_PLACES[name]), name)
