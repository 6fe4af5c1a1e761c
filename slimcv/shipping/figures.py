"""Measurements with the times of the final measurement in them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from slimcv.measure import latency, size
from slimcv.results import Measurement
from slimcv.shipping.contenders import alone, fastest_unmodified, original_file

if TYPE_CHECKING:
    from slimcv.run import Run


def timed(figures: Measurement, timing: latency.Timing) -> Measurement:
    """The figures with what was measured beside the others."""
    return replace(
        figures,
        latency_ms=timing.latency,
        throughput_ips=timing.throughput_ips,
        peak_rss_bytes=timing.peak_rss_bytes,
        precision=timing.precision,
    )


def retimed(original: Measurement, timing: latency.Timing) -> Measurement:
    """The original's figures as another runtime or allocator gives them.

    Accuracy stands for eager PyTorch alone.
    """
    return replace(timed(original, timing), top1=None, top5=None)


def best_unmodified(
    original: Measurement, unmodified: dict[str, Path], timings: dict[str, latency.Timing], run: Run
) -> Measurement:
    """The original in the runtime that is fastest with it as it is."""
    contender = fastest_unmodified(unmodified, timings)
    fastest = next((name for name in unmodified if alone(name) == contender), "eager")
    return replace(
        retimed(original, timings[contender]),
        runtime=fastest,
        size_bytes=size.artifact_bytes(unmodified.get(fastest, original_file(run))),
    )
