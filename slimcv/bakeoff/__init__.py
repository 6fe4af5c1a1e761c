"""Every way in which this machine can run a variant, timed in turns before the final measurement.

A recipe's exports are the files that are meant; that another way might be faster is not to be ruled out by
belief. The heat is short: whatever beats the exports in it takes part in the final measurement. Most of its
time would go into compiling what has no chance, so it is run in rounds after each of which the slow ones are
out: calls are spent where the race is close (Karnin, Koren and Somekh, Almost Optimal Exploration in
Multi-Armed Bandits, ICML 2013). First comes what is ready at once, then what PyTorch's compiler makes of the
forms that are still in it, last the machine code that is compiled ahead of time.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from slimcv import parity, runtimes
from slimcv.bakeoff.candidates import LIBRARIES, Candidates, compiles, written
from slimcv.bakeoff.names import FLOATS, form_of, runtime_of
from slimcv.bakeoff.table import Row, rows, slower
from slimcv.errors import SlimcvError
from slimcv.measure import latency
from slimcv.measure.latency import Contender, ContenderFailed, Timing

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from slimcv.step import Context, Variant

__all__ = ["FLOATS", "TOLERANCE", "Heat", "Row", "form_of", "heat", "rows", "runtime_of"]

FIRST_SAMPLES = 6
"""Calls timed of each in the first round."""

SAMPLES = 20
"""Calls timed of each that is left after it."""

HOPELESS = 1.5
"""What takes so many times as long as the fastest export in the first round is out: medians of few calls are
uncertain by a fifth.

OpenVINO's time with floats says what compiling them can give: it was the shorter one with all of ResNet-18
and -50, MobileNetV2 and V3, EfficientNet-B0 and two plain networks (one thread, AVX-512).
"""

TOLERANCE = 1e-3
"""As for compiled networks in the steps: the order of a sum may change, nothing else."""

log = logging.getLogger("slimcv")


@dataclass
class Heat:
    """`files` for the final measurement by name, `timings` of all that ran, `problems` of what is out."""

    files: dict[str, Path] = field(default_factory=dict)
    timings: dict[str, Timing] = field(default_factory=dict)
    problems: dict[str, str] = field(default_factory=dict)


@dataclass
class _Questions:
    """Pictures (n, height, width, channels), where they lie as `.npy`, and what variants answer to them.

    An output in floats may differ by `tolerance` times the largest one.
    """

    pixels: NDArray[np.uint8]
    path: Path
    tolerance: float
    known: dict[int, NDArray[np.float32]] = field(default_factory=dict)

    def expected(self, variant: Variant) -> NDArray[np.float32]:
        """The variant's own outputs (n, classes) in eager PyTorch, computed once."""
        key = id(variant.model)
        if key not in self.known:
            self.known[key] = parity.expected(variant, self.pixels)
        return self.known[key]


def heat(
    variant: Variant,
    files: Mapping[str, Path],
    *,
    context: Context,
    folder: Path,
    in_floats: Variant | None = None,
    left_out: Mapping[str, str] | None = None,
    lossless: bool = False,
) -> Heat:
    """Time `files`, by name, with all else that can run the variant; `folder` is for what is written.

    What is not among `files` must give the answers of the variant, or of `in_floats`, which a quantised
    variant was made from, and stays a candidate only where it is faster than they all. `left_out` says of
    candidates why they are none. Where the variant is to be `lossless` nothing computes in bfloat16, and
    outputs are held to `slimcv.parity.LOSSLESS`. Raises SlimcvError where none of `files` runs.
    """
    more = written(variant, files, folder, in_floats=in_floats, left_out=left_out, lossless=lossless)
    heat = Heat(problems=more.problems)
    every = {**files, **more.files}
    log.info("bake-off: %s", ", ".join(every))
    ready = {name: path for name, path in every.items() if not compiles(name)}
    first = _timed(heat, ready, variant, context, samples=FIRST_SAMPLES)
    _drop_the_hopeless(heat, files, more, first)
    tolerance = parity.LOSSLESS if lossless else TOLERANCE
    questions = _Questions(parity.pictures(variant, context), folder / "pictures.npy", tolerance)
    np.save(questions.path, questions.pixels, allow_pickle=False)
    left = {name: path for name, path in every.items() if name not in heat.problems}
    second = _timed(heat, left, variant, context, samples=SAMPLES, asked=questions.path)
    heat.timings = {**first, **second}
    for name in second.keys() & more.files.keys():
        _judge_answers(heat, name, more.variants[name], questions)
    heat.files = {name: path for name, path in files.items() if name not in heat.problems}
    if not heat.files:
        raise SlimcvError(
            f"no export runs here: {'; '.join(heat.problems[name] for name in files)}", "see slimcv doctor"
        )
    rival = min(heat.files, key=lambda name: heat.timings[name].latency.p50)
    fastest = heat.timings[rival].latency.p50
    heat.files |= {
        name: path
        for name, path in more.files.items()
        if name in left and name not in heat.problems and heat.timings[name].latency.p50 < fastest
    }
    _try_machine_code(heat, variant, {rival: files[rival]}, context=context, questions=questions)
    return heat


def _timed(
    heat: Heat,
    files: Mapping[str, Path],
    variant: Variant,
    context: Context,
    *,
    samples: int,
    asked: Path | None = None,
) -> dict[str, Timing]:
    """What runs, timed in turns; why others do not becomes one of the problems."""
    contenders = {
        name: Contender(path, runtime_of(name), context.threads, variant.input)
        for name, path in files.items()
        if name not in heat.problems
    }
    while contenders:
        try:
            return latency.interleaved(contenders, samples=samples, asked=asked, seed=context.seed)
        except ContenderFailed as error:
            heat.problems[error.contender] = error.message
            del contenders[error.contender]
    return {}


def _drop_the_hopeless(
    heat: Heat, files: Mapping[str, Path], more: Candidates, first: Mapping[str, Timing]
) -> None:
    """After the first round: what is far behind is out, and so is compiling floats where they are."""
    exports = [name for name in files if name in first]
    if not exports:
        return
    rival = min(exports, key=lambda name: first[name].latency.p50)
    limit = HOPELESS * first[rival].latency.p50
    for name in more.files.keys() & first.keys():
        if first[name].latency.p50 > limit:
            heat.problems[name] = (
                f"{slower(first[name], first[rival], than=rival)} in a first round of {FIRST_SAMPLES} calls"
            )
    for name in filter(compiles, more.files):
        alike = [
            timing
            for each, timing in first.items()
            if form_of(each) == form_of(name) and runtime_of(each) in LIBRARIES
        ]
        if more.variants[name].precision != "int8" and alike:
            best = min(alike, key=lambda timing: timing.latency.p50)
            if best.latency.p50 > limit:
                taken = slower(best, first[rival], than=rival)
                heat.problems[name] = f"not compiled: with these floats the fastest runtime takes {taken}"


def _judge_answers(heat: Heat, name: str, variant: Variant, questions: _Questions) -> None:
    """A candidate that answers otherwise than `variant` is out."""
    timing = heat.timings[name]
    if timing.outputs is None:
        raise SlimcvError("a contender was not asked for its outputs", "this is a fault of slimcv")
    found = parity.compared(
        variant,
        questions.expected(variant),
        timing.outputs,
        precision=timing.precision,
        tolerance=questions.tolerance,
    )
    reason = parity.objection(found, int8=variant.precision == "int8")
    if reason is not None:
        heat.problems[name] = f"answers otherwise than the network: {reason}"


def _try_machine_code(
    heat: Heat,
    variant: Variant,
    rival: Mapping[str, Path],
    *,
    context: Context,
    questions: _Questions,
) -> None:
    """Compile ahead of time, which takes longest, where Inductor with the same kernels is in the race.

    `rival` is the fastest export.
    """
    name, (against,) = runtimes.NATIVE, rival
    if name in heat.timings or name in heat.problems:
        return
    compiled = heat.timings.get("inductor")
    if compiled is None or "inductor" in heat.problems:
        heat.problems[name] = f"not compiled; inductor: {heat.problems.get('inductor', 'not tried')}"
        return
    taken = slower(compiled, heat.timings[against], than=against)
    if compiled.latency.p50 > HOPELESS * heat.timings[against].latency.p50:
        heat.problems[name] = f"not compiled: inductor, which makes the same kernels, takes {taken}"
        return
    made = Candidates()
    made.write(name, variant, lambda: runtimes.write(variant, name, questions.path.parent / name))
    heat.problems |= made.problems
    timings = _timed(heat, {**rival, **made.files}, variant, context, samples=SAMPLES, asked=questions.path)
    if not {name, against} <= timings.keys():
        return
    heat.timings[name] = timings[name]
    _judge_answers(heat, name, variant, questions)
    if name in heat.problems:
        return
    if timings[name].latency.p50 < timings[against].latency.p50:
        heat.files |= made.files
    else:
        heat.problems[name] = slower(timings[name], timings[against], than=against)
