"""Which road of a recipe's `either` is taken: each is gone to its end untrained, and the forms are timed.

Nothing is trained for it: a network's latency does not depend on its weights. So each road's steps are
applied to a copy as drafts, then what the recipe does to every road (a smaller input, fusion, INT8), and the
files that come out are timed in turns, in every runtime that the recipe exports for.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from slimcv import runtimes
from slimcv.errors import NotApplicable, Rejected, SlimcvError
from slimcv.measure import latency, size
from slimcv.measure.variant import measurement
from slimcv.models import capture
from slimcv.recipe import EXPORTS
from slimcv.results import Measurement, Record
from slimcv.step import Stage, Step, Variant

if TYPE_CHECKING:
    from slimcv.recipe import Entry, Recipe
    from slimcv.step import Context

RUNTIMES = ("openvino", "onnxruntime")

WORTH = 1.15
"""How many times faster a road must be for which an earlier one is left: what either costs in accuracy is not
known yet, and a recipe lists the one first that it has more trust in."""

LIMIT_SECONDS = 10.0
"""What timing one form in one runtime may take at most."""

log = logging.getLogger("slimcv")


@dataclass(frozen=True)
class Form:
    """What became of a road: its own steps, and its untrained form in the runtime that is fastest with it.

    `at` is the position of the first of those steps in the recipe; `problem` says why there is no form.
    """

    at: int

    steps: tuple[str, ...]
    measurement: Measurement | None = None
    problem: str | None = None

    def __str__(self) -> str:
        name = " → ".join(self.steps)
        found = self.measurement
        if found is None or found.latency_ms is None:
            return f"{name}: {self.problem}"
        return f"{name} {found.latency_ms.p50:.3g} ms ({found.runtime}, {found.precision})"


@dataclass(frozen=True)
class Decision:
    """The road that is taken, and what was found of each. Unmeasured where there was nothing to choose by."""

    taken: int
    forms: tuple[Form, ...]
    measured: bool

    def as_json(self) -> dict[str, Any]:
        """What records keep, and `from_json` reads."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Decision:
        """Read back what `as_json` wrote."""
        forms = []
        for form in values["forms"]:
            found = form["measurement"] and Measurement.from_json(form["measurement"])
            forms.append(Form(form["at"], tuple(form["steps"]), found, form["problem"]))
        return cls(values["taken"], tuple(forms), values["measured"])

    def reason(self) -> str:
        """Why the others are not taken."""
        taken = " → ".join(self.forms[self.taken].steps)
        if not self.measured:
            return f"the first road is taken, {taken}: there was nothing to choose by"
        told = "; ".join(map(str, self.forms))
        rule = f"one further down the list must be {WORTH:g}× faster"
        return f"the road taken is {taken}, the forms untrained: {told}; {rule}"


def decide(recipe: Recipe, fork: int, before: Variant, *, context: Context, folder: Path) -> Decision:
    """Make the untrained form of each road from `before`, write it into `folder`, and time them in turns.

    The first road is taken unless another one is faster by `WORTH` and by more than the measured spread.
    Without pictures no step of a road could be judged, and nothing is measured.
    """
    roads = recipe.roads(fork)
    forms = _forms(roads)
    if context.data is None:
        return Decision(0, tuple(replace(form, problem="needs data") for form in forms), measured=False)
    log.info("either: timing %s, untrained", " against ".join(" → ".join(form.steps) for form in forms))
    made: dict[int, Variant] = {}
    for number, road in enumerate(roads):
        try:
            steps = [entry.step for _, entry in road]
            made[number] = _finished(_gone(before, steps, context), recipe, fork, context)
        except (NotApplicable, Rejected) as error:
            forms[number] = replace(forms[number], problem=error.message)
    timings = _timed(made, _runtimes(recipe, context), context=context, folder=folder)
    for number, variant in made.items():
        found = _measured(variant, timings.get(number))
        problem = None if found else "no runtime takes it"
        forms[number] = replace(forms[number], measurement=found, problem=problem)
    if not timings:
        return Decision(0, tuple(forms), measured=False)
    fastest = min(timings.values(), key=lambda timing: timing.latency.p50)
    taken = next(number for number in sorted(timings) if not _worth_leaving(timings[number], fastest))
    return Decision(taken, tuple(forms), measured=True)


def _worth_leaving(road: latency.Timing, other: latency.Timing) -> bool:
    return latency.faster(road, other) and road.latency.p50 >= WORTH * other.latency.p50


def records(decision: Decision, numbers: Sequence[int]) -> list[Record]:
    """A record for each road that is not taken, `numbers` being theirs; each holds the whole decision."""
    others = [place for place in range(len(decision.forms)) if place != decision.taken]
    found = []
    for number, place in zip(numbers, others, strict=True):
        form = decision.forms[place]
        found.append(
            Record(
                number,
                form.at,
                form.steps[0],
                "skipped" if form.measurement is None else "rejected",
                decision.reason(),
                0.0,
                measurement=form.measurement,
                details={"either": decision.as_json()},
            )
        )
    return found


def _forms(roads: Sequence[Sequence[tuple[int, Entry]]]) -> list[Form]:
    """Roads by the steps that not all of them have; by all their steps where they differ in parameters."""
    common = set.intersection(*({entry.name for _, entry in road} for road in roads))
    forms = []
    for road in roads:
        own = [(at, entry.name) for at, entry in road if entry.name not in common]
        own = own or [(at, entry.name) for at, entry in road]
        forms.append(Form(own[0][0], tuple(name for _, name in own)))
    return forms


def _gone(before: Variant, steps: Sequence[Step], context: Context) -> Variant:
    """A road's own steps as drafts. Raises NotApplicable where none of them has anything to do."""
    variant, reason = before, "it only trains"
    for step in steps:
        try:
            variant = _applied(step, variant, context)
        except NotApplicable as error:
            reason = error.message
    if variant is before:
        raise NotApplicable(reason)
    return variant


def _finished(variant: Variant, recipe: Recipe, fork: int, context: Context) -> Variant:
    """What the recipe goes on to do to every road, where it changes what the network takes of time."""
    last = recipe.roads(fork)[-1][-1][0]
    for entry in recipe.entries[last + 1 :]:
        if entry.road is None and entry.step.stage < Stage.EXPORT and entry.step.gains is None:
            with contextlib.suppress(NotApplicable, Rejected):
                variant = _applied(entry.step, variant, context)
    return variant


def _applied(step: Step, variant: Variant, context: Context) -> Variant:
    if step.trains:
        return variant
    return step.draft().apply(replace(variant, model=capture.copy(variant.model)), context)


def _runtimes(recipe: Recipe, context: Context) -> list[str]:
    """Those that the recipe exports for; compiling forms that are thrown away would take too long."""
    names = {entry.name for entry in recipe.entries}
    return [name for name in RUNTIMES if EXPORTS[name] in names] or [context.runtime]


def _timed(
    made: Mapping[int, Variant], names: Sequence[str], *, context: Context, folder: Path
) -> dict[int, latency.Timing]:
    """Each road's timing in the runtime that is fastest with it; a road that no runtime takes has none."""
    contenders: dict[str, latency.Contender] = {}
    for number, variant in made.items():
        for name in names:
            try:
                path = runtimes.write(variant, name, folder / f"road-{number}")
            except SlimcvError as error:
                if error.disk_fault:
                    raise
                continue
            contenders[f"{number} {name}"] = latency.Contender(path, name, context.threads, variant.input)
    while contenders:
        try:
            timings = latency.interleaved(contenders, limit_seconds=LIMIT_SECONDS)
            break
        except latency.ContenderFailed as error:
            del contenders[error.contender]
    else:
        return {}
    found: dict[int, latency.Timing] = {}
    for key in sorted(timings, key=lambda key: timings[key].latency.p50):
        found.setdefault(int(key.partition(" ")[0]), timings[key])
    return found


def _measured(variant: Variant, timing: latency.Timing | None) -> Measurement | None:
    if timing is None:
        return None
    contender = timing.contender
    return measurement(
        variant,
        runtime=contender.runtime,
        size_bytes=size.artifact_bytes(contender.path),
        threads=contender.threads,
        timing=timing,
    )
