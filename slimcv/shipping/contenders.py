"""What is timed against each other at the end: the original in several ways, and what was made of it."""

from __future__ import annotations

import logging
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

from slimcv import runtimes
from slimcv.bakeoff import runtime_of
from slimcv.errors import SlimcvError
from slimcv.measure import latency

if TYPE_CHECKING:
    from slimcv.run import Run
    from slimcv.step import Context, Variant

ORIGINAL, DEFAULT_ALLOCATOR = "original", "original, default allocator"

UNMODIFIED = ("onnxruntime", "openvino")
"""Runtimes the original is tried in as is, so that what a runtime alone gives is not sold as compression."""

SAMPLES, QUICK_SAMPLES = 100, 20
"""Calls timed of each contender: a hundred are enough for a 99th percentile."""

THROUGHPUT_BATCH = 32

log = logging.getLogger("slimcv")


def files_of(variant: Variant, run: Run, number: int) -> dict[str, Path]:
    """The artifacts to choose from, by runtime.

    A recipe without exports ships the checkpoint for eager PyTorch.
    """
    files = dict(variant.artifacts)
    if not files:
        files["eager"] = runtimes.write(variant, "eager", run.workdir / f"{number:03d}-ship")
    return files


def original_file(run: Run) -> Path:
    """The original as its record keeps it."""
    return run.folder / "checkpoints" / "000-original.pt2"


def unmodified_files(context: Context, run: Run) -> dict[str, Path]:
    """The original written for other runtimes, once a run; a runtime that does not take it is left out."""
    folder = run.workdir / "unmodified"
    files: dict[str, Path] = {}
    for runtime, suffix in zip(UNMODIFIED, (".onnx", ".xml"), strict=True):
        path = folder / f"model{suffix}"
        try:
            files[runtime] = (
                path
                if path.is_file()
                else runtimes.write(replace(context.teacher, artifacts=files), runtime, folder)
            )
        except SlimcvError as error:
            if error.disk_fault:
                raise
            log.info("the original cannot be written for %s: %s", runtime, error.message)
    return files


def alone(runtime: str) -> str:
    """What the original in another runtime is called among the contenders."""
    return f"original in {runtime}"


def timed_together(
    context: Context,
    run: Run,
    variant: Variant,
    *,
    files: dict[str, Path],
    unmodified: dict[str, Path],
    quick: bool,
) -> dict[str, latency.Timing]:
    """All timed interleaved; a contender that fails is left out, unless nothing is left without it."""
    threads, eager = context.threads, original_file(run)
    spec = context.teacher.input
    contenders = {
        ORIGINAL: latency.Contender(eager, "eager", threads, spec),
        DEFAULT_ALLOCATOR: latency.Contender(eager, "eager", threads, spec, allocator="default"),
        **{alone(name): latency.Contender(path, name, threads, spec) for name, path in unmodified.items()},
        **{
            name: latency.Contender(path, runtime_of(name), threads, variant.input)
            for name, path in files.items()
        },
    }
    while True:
        try:
            return latency.interleaved(
                contenders,
                samples=QUICK_SAMPLES if quick else SAMPLES,
                memory=True,
                throughput_batch=THROUGHPUT_BATCH,
            )
        except latency.ContenderFailed as error:
            del contenders[error.contender]
            if error.contender == ORIGINAL or not set(files) & set(contenders):
                raise
            log.warning("left out of the final measurement: %s", error.message)


def fastest_unmodified(unmodified: dict[str, Path], timings: dict[str, latency.Timing]) -> str:
    """The contender that is the original in the runtime that is fastest with it as it is."""
    names = [alone(name) for name in unmodified if alone(name) in timings]
    return min(names or [ORIGINAL], key=lambda name: timings[name].latency.p50)


def intervals(
    timings: dict[str, latency.Timing], unmodified: dict[str, Path], best: str
) -> dict[str, dict[str, float]]:
    """The report's ratios of latencies with the bounds of their 95 % intervals."""
    alone = fastest_unmodified(unmodified, timings)
    pairs = {
        "latency_p50": (ORIGINAL, best),
        "allocator_alone": (DEFAULT_ALLOCATOR, ORIGINAL),
        "runtime_alone": (ORIGINAL, alone),
        "beyond_runtime": (alone, best),
    }
    return {
        key: asdict(latency.ratio(timings[before], timings[after]))
        for key, (before, after) in pairs.items()
        if before in timings and before != after
    }
