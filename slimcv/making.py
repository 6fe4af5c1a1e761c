"""What an entry makes of a variant: its step on a copy, then its training, kept at once."""

from __future__ import annotations

import logging
import time
from dataclasses import replace

from slimcv import parity, runtimes, speed
from slimcv.errors import NotApplicable, Rejected
from slimcv.gate import Gate
from slimcv.instruments import Held, Instruments, refusals
from slimcv.models import capture
from slimcv.recipe import Entry, Recipe
from slimcv.run import Run
from slimcv.step import Context, Stage, Step, Variant

log = logging.getLogger("slimcv")

LEFT_OUT = "left_out"
"""In a variant's details: why the training that made it went without its entry's own step."""


def gate_of(recipe: Recipe, entry: Entry) -> Gate:
    """The entry's gate; where it has none, the recipe's `max_drop`.

    After training, that `max_drop` is held against the variant before.
    """
    if entry.gate is not None:
        return entry.gate
    bound = recipe.gate.max_drop
    return Gate(max_drop=bound) if entry.step.stage < Stage.FUSE else Gate(max_step_drop=bound)


class Maker:
    """Makes candidates; it measures only what saves training, and judges nothing."""

    def __init__(self, recipe: Recipe, context: Context, run: Run, instruments: Instruments) -> None:
        self._recipe = recipe
        self._context = context
        self._run = run
        self._instruments = instruments
        self._kept: dict[tuple[int, str], Variant] = {}

    def keep(self, entry: Entry, variant: Variant, before: Held) -> None:
        """Have the next attempt at the entry, from the same `before`, begin with what it made."""
        self._kept[before.number, entry.name] = variant

    def make(self, entry: Entry, before: Held, number: int, *, repairs: bool) -> Variant:
        """What the entry makes of `before`.

        After training it is kept at once: a run killed while it is measured must not train again.
        """
        kept = self._run.find_checkpoint(number, entry.name) if entry.trains else None
        if kept is not None:
            return self._run.read_checkpoint(kept)
        variant = self._apply(entry, before, repairs=repairs)
        if entry.trains:
            self._run.save_checkpoint(number, entry.name, variant)
        return variant

    def _apply(self, entry: Entry, before: Held, *, repairs: bool) -> Variant:
        context = replace(
            self._context,
            runtime=self._instruments.yardstick,
            gate=gate_of(self._recipe, entry),
            objective=self._recipe.objective,
            recover=entry.recover,
        )
        can_be_judged = entry.step.lossless or entry.step.data_free
        if context.data is None and (entry.step.needs_data or entry.trains or not can_be_judged):
            raise NotApplicable("needs data")
        if entry.trains and context.deadline is not None and time.perf_counter() >= context.deadline:
            raise NotApplicable("the run's time budget is used up")
        if entry.step.quantizes and entry.step.stage == Stage.EXPORT:
            return self._other_form(entry.step, before)
        details = {key: value for key, value in before.variant.details.items() if key != LEFT_OUT}
        given = replace(before.variant, details=details)
        made = self._kept.pop((before.number, entry.name), None)
        try:
            variant = made or self._changed(entry, before, given, context)
        except (NotApplicable, Rejected) as error:
            if not (repairs and entry.recover):
                raise
            log.info("%s: %s; the surgery before it is repaired all the same", entry.name, error.message)
            variant = replace(
                given, model=capture.copy(given.model), details={**details, LEFT_OUT: error.message}
            )
        if entry.recover is None:
            return variant
        from slimcv.steps.finetune import Finetune

        return Finetune(**entry.recover.model_dump(exclude_unset=True)).apply(variant, context)

    def _changed(self, entry: Entry, before: Held, given: Variant, context: Context) -> Variant:
        """What the entry's own step makes of a copy of `given`.

        Raises Rejected before minutes of training are spent on what is no gain to begin with.
        """
        variant = entry.step.apply(replace(given, model=capture.copy(given.model)), context)
        if entry.step.lossless and entry.step.stage < Stage.EXPORT:
            parity.unchanged(before.variant, variant, context=context)
        if entry.recover is not None and not entry.step.enabling:
            self._refuse_without_gain(entry.step, before, variant)
        return variant

    def _other_form(self, step: Step, before: Held) -> Variant:
        """The variant with one more file, which another quantiser made of what it was in floats."""
        source = before.in_floats or before.variant
        made = step.apply(replace(source, model=capture.copy(source.model), artifacts={}), self._context)
        told = {step.artifact: made.details[step.artifact]} if step.artifact in made.details else {}
        return replace(
            before.variant,
            runtime=made.runtime,
            artifacts={**before.variant.artifacts, **made.artifacts},
            details={**before.variant.details, **told},
        )

    def _refuse_without_gain(self, step: Step, before: Held, variant: Variant) -> None:
        """Raise Rejected where the variant is no gain, or the runtime to deploy to does not take it."""
        with refusals():
            trial = runtimes.write(variant, self._instruments.yardstick, self._run.workdir / "trial")
            timings = speed.timed(
                step,
                lambda: self._instruments.timings(
                    before, Held(variant, -1), trial, self._instruments.yardstick
                ),
            )
        if not self._instruments.gained(timings, self._instruments.file(before), trial):
            raise Rejected(f"{speed.no_gain(timings)}; not trained")
