"""Every way in which this machine can run a variant, timed in turns before the final measurement.

A recipe's exports are the files that are meant; that another way might be faster is not to be ruled out by
belief. The heat is short: whatever beats the exports in it takes part in the final measurement.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from slimcv import parity, runtimes
from slimcv.errors import SlimcvError
from slimcv.measure import environment, latency
from slimcv.measure.latency import Contender, ContenderFailed, Timing
from slimcv.rounding import digits, significant

if TYPE_CHECKING:
    from slimcv.step import Context, Variant

SAMPLES = 20
"""Calls timed of each in the heat."""

TOLERANCE = 1e-3
"""As for compiled networks in the steps: the order of a sum may change, nothing else."""

FROM_CHECKPOINT = ("eager", "eager_channels_last", *runtimes.COMPILED)
"""Runtimes that need no file but the variant's own `.pt2`."""

NO_BF16 = "this CPU has no bfloat16 instructions"
NO_INT8 = "PyTorch computes an 8-bit graph on dequantised values unless it is compiled with frozen weights"
NO_FILE = "the recipe has no export for it, or its step was rejected"

log = logging.getLogger("slimcv")


@dataclass(frozen=True)
class Heat:
    """`files` for the final measurement by name, `timings` of all that ran, `problems` of what did not."""

    files: dict[str, Path]
    timings: dict[str, Timing]
    problems: dict[str, str]


@dataclass(frozen=True)
class Row:
    """One way of running the variant: the median call with one picture, its spread, and what became of it."""

    name: str
    runtime: str
    precision: str | None
    p50_ms: float | None
    outcome: str
    spread: float | None = None


def runtime_of(name: str) -> str:
    """What runs the file of a candidate: "openvino" of "openvino:nncf"."""
    return name.partition(":")[0]


def form_of(name: str) -> str:
    """What rounds a candidate's numbers otherwise than the variant: "nncf" of "openvino:nncf", else ""."""
    return name.partition(":")[2]


def heat(variant: Variant, files: Mapping[str, Path], *, context: Context, folder: Path) -> Heat:
    """Time `files`, by name, with all else that can run the variant; `folder` is for what is written.

    What is not among `files` must give the variant's own answers, and stays a candidate only where it is
    faster than they all.
    """
    more, problems = _written(variant, files, folder)
    pictures = folder / "pictures.npy"
    pixels = parity.pictures(variant, context)
    np.save(pictures, pixels, allow_pickle=False)
    contenders = {
        name: Contender(path, runtime_of(name), context.threads, variant.input)
        for name, path in {**files, **more}.items()
    }
    log.info("bake-off: %s", ", ".join(contenders))
    timings: dict[str, Timing] = {}
    while contenders:
        try:
            timings = latency.interleaved(contenders, samples=SAMPLES, asked=pictures, seed=context.seed)
            break
        except ContenderFailed as error:
            problems[error.contender] = error.message
            del contenders[error.contender]
    wanted = parity.expected(variant, pixels)
    for name in [name for name in more if name in timings]:
        found = parity.compared(
            variant, wanted, _outputs(timings[name]), precision=timings[name].precision, tolerance=TOLERANCE
        )
        reason = parity.objection(found, tolerance=TOLERANCE, int8=variant.precision == "int8")
        if reason is not None:
            problems[name] = f"answers otherwise than the network: {reason}"
    fastest = min((timings[name].latency.p50 for name in files if name in timings), default=float("inf"))
    faster = {
        name: path
        for name, path in more.items()
        if name in timings and name not in problems and timings[name].latency.p50 < fastest
    }
    kept = {name: path for name, path in files.items() if name not in problems}
    return Heat({**kept, **faster}, timings, problems)


def rows(heat: Heat, final: Mapping[str, Timing], *, best: str, refused: Mapping[str, str]) -> Iterator[Row]:
    """The table, the fastest first; `final` are the timings of the final measurement, `best` is served.

    `refused` says why candidates were not taken whatever their speed.
    """
    every = sorted(heat.timings, key=lambda name: heat.timings[name].latency.p50)
    for name in every:
        timing = final.get(name, heat.timings[name])
        # Compared with the winner in the same run.
        winner = (final if name in final else heat.timings)[best].latency
        slower = significant(timing.latency.p50 / winner.p50, digits(timing.latency.spread, winner.spread))
        outcome = f"{slower}× the time of {best}"
        if name == best:
            outcome = "served"
        elif name in heat.problems:
            outcome = heat.problems[name]
        elif name in refused:
            outcome = f"{refused[name]} ({outcome})"
        figures = timing.latency
        yield Row(name, runtime_of(name), timing.precision, figures.p50, outcome, figures.spread)
    for name in sorted(heat.problems.keys() - heat.timings.keys()):
        yield Row(name, runtime_of(name), None, None, heat.problems[name])


def _outputs(timing: Timing) -> np.ndarray:
    if timing.outputs is None:
        raise SlimcvError("a contender was not asked for its outputs", "this is a fault of slimcv")
    return timing.outputs


def _written(
    variant: Variant, files: Mapping[str, Path], folder: Path
) -> tuple[dict[str, Path], dict[str, str]]:
    """The files of what the recipe does not export, and why there is none of some."""
    more: dict[str, Path] = {}
    problems: dict[str, str] = {}

    def write(name: str, make: Callable[[], Path]) -> None:
        if name in files:
            return
        try:
            more[name] = make()
        except SlimcvError as error:
            if error.disk_fault:
                raise
            problems[name] = error.message

    checkpoint = runtimes.write(variant, "eager", folder)
    int8 = variant.precision == "int8"
    for name in FROM_CHECKPOINT:
        if int8 and name != "inductor":
            problems[name] = NO_INT8
        else:
            write(name, lambda: checkpoint)
    write(runtimes.NATIVE, lambda: runtimes.write(variant, runtimes.NATIVE, folder / runtimes.NATIVE))
    if variant.precision == "fp32":
        half = replace(variant, precision="bf16")
        for name in ("eager_channels_last", "inductor"):
            if environment.has_bf16_instructions():
                write(f"{name}:bf16", lambda: runtimes.write(half, "eager", folder / "bf16"))
            else:
                problems[f"{name}:bf16"] = NO_BF16
    for name in runtimes.NAMES:
        if name not in {*files, *more, *problems}:
            problems[name] = NO_FILE
    return more, problems
