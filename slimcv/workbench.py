"""The workbench of a session: apply an entry to a copy, measure it against the one before, judge, journal."""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from slimcv import crossroads, parity
from slimcv.errors import NotApplicable, Rejected
from slimcv.gate import Verdict, judge
from slimcv.instruments import BEFORE, CANDIDATE, Held, Instruments
from slimcv.making import LEFT_OUT, Maker, gate_of
from slimcv.measure import int8_share, latency
from slimcv.recipe import Entry, Recipe
from slimcv.results import Measurement, Record
from slimcv.run import Run
from slimcv.shipping import SHIP, ship
from slimcv.shipping.judging import MISSED
from slimcv.shipping.left_out import LeftOut
from slimcv.speed import judge_speed, timed
from slimcv.step import Context, Stage, Step, Variant

log = logging.getLogger("slimcv")


class Workbench:
    """Has candidates made and measured, judges them and journals what became of each."""

    def __init__(self, recipe: Recipe, context: Context, run: Run, *, quick: bool = False) -> None:
        self.recipe = recipe
        self.quick = quick
        self.context = context
        self.run = run
        self.count = 0
        self.instruments = Instruments(recipe, context, run, quick=quick)
        self.teacher = self.instruments.teacher
        self._maker = Maker(recipe, context, run, self.instruments)
        self._left_out = LeftOut()

    def original(self) -> tuple[Record, Held]:
        """Record 0: the original's checkpoint and its figures on the tuning split."""
        number = self._next_number()
        replayed = self.run.replay()
        if replayed is not None:
            if replayed.measurement is not None:
                self.instruments.yardstick = replayed.measurement.runtime
            return replayed, self.teacher
        started = time.perf_counter()
        split = self.instruments.split
        told = "" if split is None else f"; top-1 of steps is that of {len(split)} pictures of train/"
        log.info("original: measuring%s", told, extra={"begun": (-1, "original")})
        checkpoint = self.run.save_checkpoint(number, "original", self.teacher.variant)
        file = self.instruments.original_file(self.teacher)
        figures = self.instruments.figures(self.teacher, file, timing=None)
        seconds = time.perf_counter() - started
        record = Record(
            number, -1, "original", "measured", "", seconds, measurement=figures, checkpoint=checkpoint
        )
        return self.run.commit(record), self.teacher

    def attempt(
        self, at: int, before: Held, *, judged: bool, repairs: bool = False, recovers: bool = True
    ) -> tuple[Record, Held | None]:
        """Apply entry `at` to a copy of `before`; the candidate is None unless it was accepted.

        `judged` says that accuracy is judged now and not after a later entry's training, `repairs` that this
        entry's training has surgery to repair: it then trains even where its own step is no gain.
        Without `recovers` the entry's training is left out.
        """
        entry = self.recipe.entries[at]
        if not recovers:
            entry = replace(entry, recover=None)
        number = self._next_number()
        replayed = self.run.replay()
        if replayed is not None:
            self._left_out.by_step(entry.step, replayed)
            return replayed, self._replayed(replayed, entry.step, before)
        started = time.perf_counter()
        self.instruments.forget(number)
        log.info("%s: applying", entry.name, extra={"begun": (at, entry.name)})
        foretold, words = self._foretold(entry, before)
        record = Record(number, at, entry.name, "skipped", "", 0.0)
        candidate = None
        try:
            candidate = self._held(
                self._maker.make(entry, before, number, repairs=repairs), number, entry.step, before
            )
            verdict, figures, figures_before = self._judge(
                entry, before, candidate, judged=judged, needs_gain=not repairs and self._needs_gain(entry)
            )
            record = replace(
                record,
                outcome="accepted" if verdict.accepted else "rejected",
                reason=verdict.reason,
                measurement=figures,
                before=figures_before,
                details={**self._details(candidate.variant), "repairable": verdict.repairable},
            )
            if not recovers and (verdict.accepted or verdict.repairable):
                self._maker.keep(entry, candidate.variant, before)  # Its training would begin where it ends.
            left_out = candidate.variant.details.get(LEFT_OUT)
            if left_out is not None:
                words = f"; trained without {entry.name}: {left_out}"
                foretold = {"not_foretold": f"trained without {entry.name}"}
            elif self._trains_otherwise(foretold):
                foretold |= self._gradients(before, candidate)
            record = replace(record, reason=f"{record.reason}{words}", details={**record.details, **foretold})
        except Rejected as error:
            record = replace(record, outcome="rejected", reason=error.message)
        except NotApplicable as error:
            record = replace(record, reason=error.message)
        except latency.ContenderFailed as error:
            if error.contender != CANDIDATE:
                raise
            record = replace(record, outcome="rejected", reason=error.message)
        accepted = record.outcome == "accepted"
        if accepted and candidate is not None and entry.step.stage < Stage.EXPORT:
            kept = self.run.find_checkpoint(number, entry.name) if entry.trains else None
            kept = kept or self.run.save_checkpoint(number, entry.name, candidate.variant)
            record = replace(record, checkpoint=kept)
        record = replace(record, seconds=time.perf_counter() - started)
        record = self.run.commit(record)
        self._left_out.by_step(entry.step, record)
        if not accepted:
            self.run.drop_checkpoint(number, entry.name)
        return record, candidate if accepted else None

    def choose(self, fork: int, before: Held) -> tuple[int, list[Record]]:
        """The road of an `either` that goes on from here, and a record for each that does not."""
        numbers = [self._next_number() for _ in self.recipe.roads(fork)[1:]]
        replayed = [found for found in (self.run.replay() for _ in numbers) if found is not None]
        started = time.perf_counter()
        if replayed:
            decision = crossroads.Decision.from_json(replayed[0].details["either"])
        else:
            context = replace(self.context, runtime=self.instruments.yardstick)
            folder = self.run.workdir / f"{numbers[0]:03d}-either"
            decision = crossroads.decide(self.recipe, fork, before.variant, context=context, folder=folder)
            shutil.rmtree(folder, ignore_errors=True)
        records = crossroads.records(decision, numbers)
        records[0] = replace(records[0], seconds=time.perf_counter() - started)
        # Each holds the whole decision, so that a run which died between them goes on with the same one.
        made = [self.run.commit(record) for record in records[len(replayed) :]]
        return decision.taken, [*replayed, *made]

    def take_back(self, at: int, because: Record) -> Record:
        """The record that an accepted surgery is undone because what followed could not repair it."""
        number = self._next_number()
        replayed = self.run.replay()
        if replayed is not None:
            return replayed
        reason = f"taken back: {self._shortfall(because)}"
        name = self.recipe.entries[at].name
        record = Record(number, at, name, "rejected", reason, 0.0, measurement=because.measurement)
        return self.run.commit(record)

    def _shortfall(self, because: Record) -> str:
        """Why what was made after a surgery is not good enough, in words."""
        otherwise: str | None = because.details.get("not_as_asked")
        if otherwise:
            return otherwise
        if because.step == SHIP:
            return f"on val/ {because.reason.removeprefix(MISSED)}"
        return f"{because.step} did not recover its accuracy ({because.reason})"

    def ship(self, held: Held, *, last_resort: bool) -> Record:
        """Measure `held` against the original on val/ and judge it by the recipe's gate."""
        number = self._next_number()
        replayed = self.run.replay()
        if replayed is not None:
            self._left_out.by_gate(held.variant, replayed)
            return replayed
        started = time.perf_counter()
        log.info(
            "final measurement: accuracy on val/, then original against optimised, interleaved",
            extra={"begun": (-1, SHIP)},
        )
        record = ship(
            held.variant,
            number=number,
            context=self.context,
            run=self.run,
            gate=self.recipe.gate,
            last_resort=last_resort,
            macs=(self.teacher.macs, held.macs),
            # For a small file floats are no alternative, however fast they are.
            in_floats=held.in_floats if self.recipe.objective == "latency" else None,
            left_out=self._left_out.reasons,
            lossless=last_resort or all(entry.step.lossless for entry in self.recipe.entries),
            forced=self.recipe.runtime,
            bake_off=self.recipe.runtime is None and not self.quick,
            quick=self.quick,
        )
        if record.outcome == "accepted" and not self.quick:
            record = replace(
                record, details={**record.details, "layer_times": self.instruments.layer_times(held, record)}
            )
        record = replace(record, seconds=time.perf_counter() - started)
        record = self.run.commit(record)
        self._left_out.by_gate(held.variant, record)
        return record

    # What an attempt is judged by

    def _needs_gain(self, entry: Entry) -> bool:
        """Whether what the entry makes has to be faster than what there is.

        Another quantiser's form need not be where `--runtime` asks for it, nor where the runtime's own export
        of the quantised network was rejected: what is timed then is nothing that could be served.
        """
        if not entry.step.artifact:
            return True
        refused = self.instruments.yardstick in self._left_out.reasons
        return not refused and entry.step.artifact != self.recipe.runtime

    def _judge(
        self, entry: Entry, before: Held, candidate: Held, *, judged: bool, needs_gain: bool
    ) -> tuple[Verdict, Measurement, Measurement]:
        exported = entry.step.stage == Stage.EXPORT
        runtime = candidate.variant.runtime if exported else self.instruments.yardstick
        file_before = self.instruments.file(before)
        file = (
            candidate.variant.artifacts[entry.step.artifact or runtime]
            if exported
            else self.instruments.candidate_file(candidate)
        )
        timings = timed(entry.step, lambda: self.instruments.timings(before, candidate, file, runtime))
        figures_before = self.instruments.figures(before, file_before, timing=timings[BEFORE])
        figures = self.instruments.figures(candidate, file, timing=timings[CANDIDATE], runtime=runtime)
        if exported and entry.step.quantizes:
            # Not the variant's own graph.
            figures = replace(figures, int8_mac_share=int8_share.of_file(file))
        elif exported and not parity.left_to_the_gate(candidate.variant, runtime):
            return Verdict(True, "outputs agree"), figures, figures_before
        needs_gain = needs_gain and (not exported or entry.step.quantizes)
        gained = not needs_gain or self.instruments.gained(timings, file_before, file)
        speed = judge_speed(entry.step, timings, gained=gained)
        if not speed.accepted:
            return speed, figures, figures_before
        if not judged:
            reason = f"{speed.reason}; accuracy is judged after training"
            return Verdict(True, reason), figures, figures_before
        original = self.instruments.figures(self.teacher, None, timing=None)
        gate = gate_of(self.recipe, entry)
        step = self.instruments.against(before, candidate, file, runtime)
        verdict = judge(gate, candidate=figures, original=original, before=figures_before, step=step)
        text = "; ".join(part for part in (speed.reason, verdict.reason) if part)
        return Verdict(verdict.accepted, text, repairable=not verdict.accepted), figures, figures_before

    def _held(self, variant: Variant, number: int, step: Step, before: Held) -> Held:
        quantized = step.stage == Stage.QUANTIZE and step.quantizes
        in_floats = before.variant if quantized else before.in_floats
        return Held(variant, number, in_floats)

    def _replayed(self, record: Record, step: Step, before: Held) -> Held | None:
        if record.outcome != "accepted":
            return None
        if record.checkpoint is not None:
            return self._held(self.run.read_checkpoint(record.checkpoint), record.number, step, before)
        artifacts = {name: self.run.folder / path for name, path in record.details["artifacts"].items()}
        variant = replace(before.variant, artifacts=artifacts, runtime=record.details["runtime"])
        return self._held(replace(variant, details=record.details["variant"]), record.number, step, before)

    def _foretold(self, entry: Entry, before: Held) -> tuple[dict[str, Any], str]:
        """What a record keeps of the step's prediction, or of why there is none, and what its reason says."""
        if self.instruments.quick:
            return {}, ""
        try:
            found = self.instruments.foretold(entry, before)
        except NotApplicable as error:
            return {"not_foretold": error.message}, ""
        return {"foretold": found.as_json()}, f" ({found})"

    def _trains_otherwise(self, foretold: Mapping[str, Any]) -> bool:
        """Whether something was foretold of the time of a training, where there is data to train on."""
        told = foretold.get("foretold") or {}
        return self.context.data is not None and told.get("training_after_ms") is not None

    def _gradients(self, before: Held, candidate: Held) -> dict[str, Any]:
        try:
            return {"gradients": self.instruments.gradients(before, candidate).as_json()}
        except NotApplicable as error:
            log.info("what the step does to training was not measured: %s", error.message)
            return {}

    def _details(self, variant: Variant) -> dict[str, object]:
        artifacts = {name: str(path.relative_to(self.run.folder)) for name, path in variant.artifacts.items()}
        return {"artifacts": artifacts, "runtime": variant.runtime, "variant": variant.details}

    def _next_number(self) -> int:
        self.count += 1
        return self.count - 1
