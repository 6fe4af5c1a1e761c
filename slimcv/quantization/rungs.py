"""The ladder of INT8: what costs least first, the next rung only where the one before misses the gate.

`plain`   ranges are the mean of the batches' extremes, weights are rounded to the nearest
`ranges`  channels between two layers of like size, and the best of three ranges of the maps
`bias`    what rounding shifts the layers' means by is taken out of the biases
`mixed`   the layers that bear 8 bits worst stay in float

Each builds on the best so far, and is taken only where it is better than that. Narrowed ranges are often
worse, so whether they are better is measured and not believed.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from torch import Tensor, fx

from slimcv import sensitivity, surgery
from slimcv.errors import NotApplicable
from slimcv.measure import macs
from slimcv.models import capture
from slimcv.quantization import FULL, REDUCED, Calibrated, calibrated
from slimcv.quantization.histograms import Ranges

if TYPE_CHECKING:
    from slimcv.quantization.judging import Figures, Judge
    from slimcv.step import Gain, InputSpec

RungName = Literal["plain", "ranges", "bias", "mixed"]

_FEW = 64
"""Pictures that channels are compared on."""

log = logging.getLogger("slimcv")


@dataclass(frozen=True)
class Plan:
    """What the rungs may do. `batches` gives normalised calibration pictures, so many of them, `sample` those
    that layers of a deployed network are ranked by.

    Later rungs than the first end after `budget` seconds of their own, and at `until`, a reading of
    `time.perf_counter`.
    """

    rungs: tuple[RungName, ...]
    input: InputSpec
    batches: Callable[[int | None], Iterable[Tensor]]
    sample: Callable[[fx.GraphModule], sensitivity.Sample]
    reduce_range: bool
    equalize: bool
    min_int8_share: float
    max_error: float
    seed: int
    preserve: Collection[Gain] = ()
    mantissa_bits: int | None = None
    budget: float | None = None
    until: float | None = None

    def begun(self) -> Plan:
        """The same plan, its budget running from now."""
        ends = [] if self.until is None else [self.until]
        ends += [] if self.budget is None else [time.perf_counter() + self.budget]
        return replace(self, until=min(ends, default=None))


@dataclass(frozen=True)
class Rung:
    """One rung as the report has it; figures are None where it was not made."""

    name: RungName
    taken: bool
    met: bool
    reason: str
    seconds: float
    error: float | None = None
    top1: float | None = None
    int8_share: float | None = None

    def as_json(self) -> dict[str, Any]:
        """For `Variant.details`."""
        return asdict(self)


@dataclass(frozen=True)
class Candidate:
    """An INT8 graph, and how it was made of `model` in floats."""

    graph: fx.GraphModule
    model: fx.GraphModule
    made: Calibrated
    equalized: bool = False
    ranges: Ranges = "extremes"
    corrected: bool = False
    left: tuple[str, ...] = ()


@dataclass(frozen=True)
class Climbed:
    """The best graph, and the rungs that were tried in their order."""

    best: Candidate
    rungs: tuple[Rung, ...]


def climb(model: fx.GraphModule, plan: Plan, judge: Judge | None) -> Climbed:
    """Rung by rung until the judge is content, the rungs are done or the time is up.

    `model` is a lifted graph in eval mode, which is left as it is. Without a judge only the first rung is
    made. Raises NotApplicable as `calibrated` does.
    """
    begun = time.perf_counter()
    best = _plain(model, plan)
    if judge is None:
        rung = Rung("plain", True, True, "not judged", time.perf_counter() - begun)
        return Climbed(best, (rung,))
    figures = judge.figures(best.graph)
    rungs = [_rung("plain", best, figures, begun, plan, taken=True, reason=_words(figures))]
    plan = plan.begun()
    for name in plan.rungs[1:]:
        if figures.met:
            break
        begun = time.perf_counter()
        log.info("quantize_int8: %s; trying the rung %s", rungs[-1].reason, name)
        try:
            _in_time(plan)
            found, said = _MAKE[name](best, plan, judge)
            seen = judge.figures(found.graph)
        except NotApplicable as error:
            rungs.append(Rung(name, False, False, error.message, time.perf_counter() - begun))
            continue
        better = seen.rank < figures.rank
        reason = f"{said}: {_words(seen)}" + ("" if better else "; not better than what was there")
        rungs.append(_rung(name, found, seen, begun, plan, taken=better, reason=reason))
        if better:
            best, figures = found, seen
    return Climbed(best, tuple(rungs))


def _plain(model: fx.GraphModule, plan: Plan) -> Candidate:
    made = calibrated(model, plan.batches(None), **_how(plan))
    return Candidate(made.graph, model, made)


def _ranges(best: Candidate, plan: Plan, judge: Judge) -> tuple[Candidate, str]:
    model, maps = best.model, 0
    if plan.equalize:
        model = capture.copy(best.model)
        maps = surgery.equalize(model, plan.input, _timed(plan.batches(_FEW), plan))
    made = calibrated(model, _timed(plan.batches(None), plan), histograms=True, **_how(plan))
    errors: dict[Ranges, float] = {}
    for ranges in ("extremes", *made.narrowed):
        errors[ranges] = judge.error(made.with_ranges(ranges))
    ranges = min(errors, key=errors.__getitem__)
    tried = ", ".join(f"{key} {100 * error:.1f} %" for key, error in errors.items())
    graph = made.with_ranges(ranges)
    said = f"channels of {maps} maps of like size, ranges by {ranges} (outputs move by: {tried})"
    return Candidate(graph, model, made, equalized=maps > 0, ranges=ranges), said


def _bias(best: Candidate, _plan: Plan, _judge: Judge) -> tuple[Candidate, str]:
    graph = best.made.corrected(best.graph)
    return replace(best, graph=graph, corrected=True), "biases corrected"


def _mixed(best: Candidate, plan: Plan, judge: Judge) -> tuple[Candidate, str]:
    levels = (REDUCED if plan.reduce_range else FULL)[1]
    deployed = sensitivity.as_deployed(best.model, plan.input)
    ranked = sensitivity.rank(
        deployed,
        plan.sample(deployed),
        plan.input,
        treatment=sensitivity.int8(levels),
        seed=plan.seed,
        each=lambda: _in_time(plan),
    )
    # What is in float already for lack of a kernel counts against what may be left.
    room = macs.int8_share(best.graph, plan.input) - plan.min_int8_share
    wanted = min(plan.max_error, judge.error(best.graph) / 2)
    left = sensitivity.to_leave(ranked, error=wanted, mac_share=room)
    if not left:
        raise NotApplicable(
            f"no layer can be left in float: at least {plan.min_int8_share:.0%} of the MACs are to be INT8"
        )
    narrowed = best.ranges != "extremes"
    made = calibrated(
        best.model, _timed(plan.batches(None), plan), histograms=narrowed, in_float=left, **_how(plan)
    )
    graph = made.with_ranges(best.ranges)
    graph = made.corrected(graph) if best.corrected else graph
    return replace(best, graph=graph, made=made, left=tuple(left)), f"{', '.join(left)} in float"


_MAKE: dict[RungName, Callable[[Candidate, Plan, Judge], tuple[Candidate, str]]] = {
    "ranges": _ranges,
    "bias": _bias,
    "mixed": _mixed,
}


def _how(plan: Plan) -> dict[str, Any]:
    return {
        "input": plan.input,
        "reduce_range": plan.reduce_range,
        "preserve": plan.preserve,
        "mantissa_bits": plan.mantissa_bits,
    }


def _in_time(plan: Plan) -> None:
    if plan.until is not None and time.perf_counter() >= plan.until:
        raise NotApplicable("the time for the rungs was up")


def _timed(batches: Iterable[Tensor], plan: Plan) -> Iterator[Tensor]:
    for batch in batches:
        _in_time(plan)
        yield batch


def _rung(
    name: RungName,
    found: Candidate,
    figures: Figures,
    begun: float,
    plan: Plan,
    *,
    taken: bool,
    reason: str,
) -> Rung:
    share = macs.int8_share(found.graph, plan.input)
    seconds = time.perf_counter() - begun
    return Rung(name, taken, figures.met, reason, seconds, figures.error, figures.top1, share)


def _words(figures: Figures) -> str:
    verdict = "gate met" if figures.met else "gate missed"
    asked = f"top-1 {figures.top1:.1f} % on {figures.pictures} pictures"
    return f"{verdict}: outputs move by {100 * figures.error:.1f} %, {asked}"
