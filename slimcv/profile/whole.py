"""Whole calls in processes of their own: what the allocator alone costs an eager model."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

from slimcv import runtimes
from slimcv.measure import latency
from slimcv.step import Variant

_SAMPLES = 10
_LIMIT_SECONDS = 2.0


@dataclass(frozen=True)
class Whole:
    """Median milliseconds of a call with each allocator, interleaved."""

    default_ms: float
    tuned_ms: float


def compare_allocators(variant: Variant, *, threads: int) -> Whole:
    """Time whole eager calls on one picture with the default and with the tuned allocator."""
    with tempfile.TemporaryDirectory(prefix="slimcv-") as folder:
        path = runtimes.write(variant, "eager", Path(folder))
        default = latency.Contender(path, "eager", threads, variant.input, "default")
        tuned = latency.Contender(path, "eager", threads, variant.input, "tuned")
        timings = latency.interleaved(
            {"default": default, "tuned": tuned}, samples=_SAMPLES, limit_seconds=_LIMIT_SECONDS
        )
    return Whole(timings["default"].latency.p50, timings["tuned"].latency.p50)
