"""The instruments of a session: files, times and figures of the variants it holds, each made once."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from slimcv import runtimes
from slimcv.bakeoff import FLOATS, runtime_of
from slimcv.errors import NotApplicable, Rejected, SlimcvError
from slimcv.measure import latency, macs, size, trial
from slimcv.measure.variant import Answers, answers, computed_exactly, measurement
from slimcv.recipe import EXPORTS, Entry, Recipe
from slimcv.results import Measurement, Paired, Record
from slimcv.run import Run
from slimcv.shipping import contenders
from slimcv.step import Context, Variant
from slimcv.writing import write_text

if TYPE_CHECKING:
    from slimcv.profile.prediction.beforehand import Foretold
    from slimcv.profile.prediction.changes import Network
    from slimcv.profile.prediction.training import Gradients
    from slimcv.profile.roofline import Limits

log = logging.getLogger("slimcv")

BEFORE, CANDIDATE = "before", "candidate"
"""The two that are timed against each other."""


@dataclass(frozen=True)
class Held:
    """A variant the session holds and the number of the record that made it.

    `in_floats` is what a quantised one was made from.
    """

    variant: Variant
    number: int
    in_floats: Variant | None = None

    @cached_property
    def macs(self) -> int:
        """Multiply-accumulates of one picture, counted once."""
        return macs.count(self.variant.model, self.variant.input)


def yardstick(recipe: Recipe) -> str:
    """The runtime that variants are compared in: the one the recipe deploys to, or that is asked for."""
    if recipe.runtime is not None:
        return runtime_of(recipe.runtime)
    names = {entry.name for entry in recipe.entries}
    return next((runtime for runtime, step in EXPORTS.items() if step in names), "eager")


@contextmanager
def refusals() -> Iterator[None]:
    """Within it a candidate that the runtime to deploy to does not take is Rejected.

    A full disk, and a failure of what the candidate is compared with, stay errors.
    """
    try:
        yield
    except SlimcvError as error:
        other = isinstance(error, latency.ContenderFailed) and error.contender != CANDIDATE
        if error.disk_fault or other:
            raise
        raise Rejected(error.message, error.hint) from error


class Instruments:
    """Measures held variants on one split, in one runtime, so that all of them can be compared."""

    def __init__(self, recipe: Recipe, context: Context, run: Run, *, quick: bool = False) -> None:
        self.context = context
        self.run = run
        self.quick = quick
        self.yardstick = yardstick(recipe)
        self.split = None if context.data is None else context.data.tuning
        self.teacher = Held(context.teacher, 0)
        self._objective = recipe.objective
        self._known: dict[tuple[int, str], Answers] = {}
        self._networks: dict[int, Network] = {}

    def foretold(self, entry: Entry, before: Held) -> Foretold:
        """How much faster the entry's step should make the variant, to be read beside what it did.

        Raises NotApplicable, with the reason, where that cannot be told.
        """
        from slimcv.profile.prediction import beforehand

        if entry.name not in beforehand.STEPS:
            reason = beforehand.WHY_NOT.get(entry.name, "there is no prediction for this step")
            raise NotApplicable(reason)
        if self.yardstick not in beforehand.RUNTIMES:
            raise NotApplicable(f"nothing is foretold in {self.yardstick}, where compiling takes long")
        if before.variant.precision == "int8":
            raise NotApplicable("the network is INT8 already")
        threads = self.context.threads
        if before.number not in self._networks:
            self._networks.clear()
            try:
                self._networks[before.number] = beforehand.network_of(
                    before.variant, runtime=self.yardstick, threads=threads, limits=self._limits
                )
            except SlimcvError as error:
                raise NotApplicable(error.message) from error
        return beforehand.foretell(self._networks[before.number], entry.name, entry.step, threads=threads)

    def gradients(self, before: Held, candidate: Held) -> Gradients:
        """What both take to train, a picture of theirs each."""
        from slimcv.profile.prediction.training import gradients

        return gradients(before.variant, candidate.variant, threads=self.context.threads)

    def layer_times(self, held: Held, shipped: Record) -> dict[str, object]:
        """What the layers of the original and of what is shipped take (see slimcv.profile.before_after)."""
        from slimcv.profile.before_after import before_and_after

        log.info("layer by layer: original and optimised, in the runtime that serves")
        in_floats = shipped.details["form"] in FLOATS and held.variant.precision == "int8"
        return before_and_after(
            self.context.teacher,
            (held.in_floats if in_floats else None) or held.variant,
            serve=shipped.details["serve"],
            threads=self.context.threads,
            limits=self._limits,
        )

    @cached_property
    def _limits(self) -> Limits:
        """What this machine can do at most, which the first run on it measures for some seconds."""
        from slimcv.profile.roofline import measured

        return measured(threads=self.context.threads)

    def timings(self, before: Held, candidate: Held, file: Path, runtime: str) -> dict[str, latency.Timing]:
        """`before` in the yardstick runtime and `candidate` as `file` in `runtime`, one picture, in turns."""
        threads = self.context.threads
        return latency.interleaved(
            {
                BEFORE: latency.Contender(self.file(before), self.yardstick, threads, before.variant.input),
                CANDIDATE: latency.Contender(file, runtime, threads, candidate.variant.input),
            }
        )

    def gained(self, timings: Mapping[str, latency.Timing], before: Path, candidate: Path) -> bool:
        """Whether the candidate is faster beyond the spread or, where the recipe is for size, smaller."""
        faster = latency.faster(timings[BEFORE], timings[CANDIDATE])
        return faster or trial.saves(before, candidate, objective=self._objective)

    def original_file(self, held: Held) -> Path:
        """Where the runtime to deploy to does not take the original, eager PyTorch becomes the yardstick."""
        try:
            return self.file(held)
        except SlimcvError as error:
            if error.disk_fault or self.yardstick == "eager":
                raise
            log.info(
                "the original is compared in eager PyTorch, not in %s: %s", self.yardstick, error.message
            )
            self.yardstick = "eager"
            return self.file(held)

    def candidate_file(self, candidate: Held) -> Path:
        """Raises Rejected where the runtime to deploy to does not take the candidate."""
        with refusals():
            return self.file(candidate)

    def forget(self, number: int) -> None:
        """Let go of what a killed run wrote for this record: what is made now may be another variant."""
        shutil.rmtree(self._folder(number), ignore_errors=True)

    def file(self, held: Held) -> Path:
        """The file in which the yardstick runtime runs this variant, written once."""
        if held.number == self.teacher.number and self.yardstick in contenders.UNMODIFIED:
            return contenders.unmodified_file(self.yardstick, self.context, self.run)
        folder = self._folder(held.number)
        done = folder / "written"
        if done.is_file():
            return folder / done.read_text("utf-8")
        folder.mkdir(exist_ok=True)
        path = runtimes.write(held.variant, self.yardstick, folder)
        write_text(done, path.name)
        return path

    def _folder(self, number: int) -> Path:
        return self.run.workdir / f"{number:03d}"

    def figures(
        self, held: Held, file: Path | None, *, timing: latency.Timing | None, runtime: str | None = None
    ) -> Measurement:
        """Every figure of a variant; top-1 is that of the tuning split, beside the original's answers."""
        file = file or self.file(held)
        runtime = runtime or self.yardstick
        return measurement(
            held.variant,
            runtime=runtime,
            size_bytes=size.artifact_bytes(file),
            threads=self.context.threads,
            macs=held.macs,
            timing=timing,
            given=self._answers(held, file, runtime),
            original=None if held.number == 0 else self._answers(self.teacher, None, self.yardstick),
        )

    def against(self, before: Held, candidate: Held, file: Path, runtime: str) -> Paired | None:
        """Top-1 of `candidate`, as `file` in `runtime`, against that of `before`; None without labels."""
        other = self._answers(before, None, self.yardstick)
        return self._answers(candidate, file, runtime).against(other)

    def _answers(self, held: Held, file: Path | None, runtime: str) -> Answers:
        key = (held.number, runtime)
        if key not in self._known:
            asked = file or self.file(held)
            self._known[key] = answers(
                asked,
                runtime,
                held.variant.input,
                split=self.split,
                threads=self.context.train_threads,
                seed=self.context.seed,
                exact=computed_exactly(held.variant, asked),
            )
        return self._known[key]
