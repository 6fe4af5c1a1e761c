"""What is timed against each other at the end: the original in several ways, and what was made of it."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

from slimcv import parity, runtimes
from slimcv.bakeoff import TOLERANCE, form_of, runtime_of
from slimcv.bakeoff.candidates import FROM_CHECKPOINT
from slimcv.errors import Refused, Rejected, SlimcvError
from slimcv.measure import latency

if TYPE_CHECKING:
    from slimcv.run import Run
    from slimcv.step import Context, Variant

ORIGINAL, DEFAULT_ALLOCATOR = "original", "original, default allocator"

UNMODIFIED = {"onnxruntime": "model.onnx", "openvino": "model.xml"}
"""Runtimes the original is tried in as is, so that what a runtime alone gives is not sold as compression, and
its files there."""

SAMPLES, QUICK_SAMPLES = 100, 20
"""Calls timed of each contender: a hundred are enough for a 99th percentile."""

THROUGHPUT_BATCH = 32

log = logging.getLogger("slimcv")


def files_of(
    variant: Variant, context: Context, run: Run, number: int, *, forced: str | None
) -> dict[str, Path]:
    """The artifacts to choose from, by name; where `forced` names the form of one, that alone.

    A recipe without exports, or whose exports were all rejected, ships the checkpoint for eager PyTorch, or
    for the `forced` one of the runtimes that read it. Raises Refused where that runtime does not run the
    network, Rejected where it answers otherwise.
    """
    if forced is not None and form_of(forced) and forced in variant.artifacts:
        return {forced: variant.artifacts[forced]}
    if variant.artifacts:
        return dict(variant.artifacts)
    folder = run.workdir / f"{number:03d}-ship"
    if forced is None or runtime_of(forced) not in FROM_CHECKPOINT:
        return {"eager": runtimes.write(variant, "eager", folder)}
    half = form_of(forced) == "bf16" and variant.precision == "fp32"
    path = runtimes.write(replace(variant, precision="bf16") if half else variant, "eager", folder)
    parity.prove(variant, path, runtime_of(forced), context=context, tolerance=TOLERANCE)
    return {forced if half else runtime_of(forced): path}


def files_or_why_not(
    variant: Variant,
    context: Context,
    run: Run,
    number: int,
    *,
    forced: str | None,
    left_out: Mapping[str, str],
) -> tuple[dict[str, Path], str | None]:
    """`files_of`, and why none of them is for the runtime of `forced`, or None where that is not so.

    A form that came to nothing leaves its runtime's own export to be served. `left_out` says of candidates
    why they are none.
    """
    try:
        files = files_of(variant, context, run, number, forced=forced)
    except (Rejected, Refused) as error:
        if error.disk_fault:
            raise
        files = files_of(variant, context, run, number, forced=None)
        return files, f"there is no file for {forced}: {error.message}"
    if forced is None or runtime_of(forced) in map(runtime_of, files):
        return files, None
    why = left_out.get(runtime_of(forced))
    return files, f"there is no file for {forced}" + (f": {why}" if why else "")


def original_file(run: Run) -> Path:
    """The original as its record keeps it."""
    return run.folder / "checkpoints" / "000-original.pt2"


def unmodified_files(context: Context, run: Run) -> dict[str, Path]:
    """The original written for other runtimes; one that does not take it is left out."""
    files: dict[str, Path] = {}
    for runtime in UNMODIFIED:
        try:
            files[runtime] = unmodified_file(runtime, context, run)
        except SlimcvError as error:
            if error.disk_fault:
                raise
            log.info("the original cannot be written for %s: %s", runtime, error.message)
    return files


def unmodified_file(runtime: str, context: Context, run: Run) -> Path:
    """The original written for one of `UNMODIFIED`, once a run; an ONNX file serves OpenVINO too.

    Raises SlimcvError where the runtime does not take it.
    """
    path = run.workdir / "unmodified" / UNMODIFIED[runtime]
    if path.is_file():
        return path
    source: dict[str, Path] = {}
    if runtime == "openvino":
        with suppress(SlimcvError):
            source = {"onnxruntime": unmodified_file("onnxruntime", context, run)}
    return runtimes.write(replace(context.teacher, artifacts=source), runtime, path.parent)


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
) -> tuple[dict[str, latency.Timing], dict[str, str]]:
    """All timed interleaved, and why others were not.

    With `quick`, images a second are those of the original and of `files` alone. A contender that fails is
    left out, unless nothing is left without it: then ContenderFailed is raised.
    """
    died: dict[str, str] = {}
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
            timings = latency.interleaved(
                contenders,
                samples=QUICK_SAMPLES if quick else SAMPLES,
                memory=True,
                throughput_batch=THROUGHPUT_BATCH,
                throughput_of={ORIGINAL, *files} if quick else None,
            )
        except latency.ContenderFailed as error:
            del contenders[error.contender]
            if error.contender == ORIGINAL or not set(files) & set(contenders):
                raise
            log.warning("left out of the final measurement: %s", error.message)
            died[error.contender] = error.message
        else:
            return timings, died


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
