"""The gate: what a variant must reach, and the verdict. Arithmetic on measurements, nothing else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict, Field

from slimcv import paired
from slimcv.rounding import digits, points_between, significant

if TYPE_CHECKING:
    from slimcv.measure.latency import Ratio
    from slimcv.results import Measurement, Paired


SMALLEST_POINTS = 0.05
"""Fewer points than these are written with two digits of their own instead of as 0.0."""


class Gate(BaseModel):
    """Bounds a variant must keep. None leaves a bound out."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_drop: float | None = Field(
        default=None,
        ge=0,
        le=100,
        description="top-1 points a variant may lie below the original, so that small drops cannot add up",
    )
    max_step_drop: float | None = Field(
        default=None,
        ge=0,
        le=100,
        description="top-1 points a variant may lie below the one it was made from; the two saw the same "
        "pictures in training, which the original did not",
    )
    min_speedup: float | None = Field(
        default=None, gt=0, description="the least ratio of the original's median latency to the variant's"
    )
    max_size: int | None = Field(
        default=None,
        gt=0,
        description="the most bytes on disk of the file that is served, as the runtime loads it: neither "
        "zipped nor packed",
    )
    confidence: float | None = Field(
        default=None,
        ge=0.5,
        lt=1,
        description="how sure it must be that max_drop and min_speedup are kept, such as 0.95; null judges "
        "by what was measured, however few pictures there were",
    )


@dataclass(frozen=True)
class Judged:
    """One bound of a gate, and why it is `kept`, in words; None where nothing was measured to judge it by."""

    name: str
    bound: float
    kept: bool | None
    reason: str


@dataclass(frozen=True)
class Verdict:
    """Whether a gate is met, and why in the words of the report.

    `repairable` says of what was rejected that it is a gain, so that training it may be worth the while.
    `decided` says whether another sample of pictures and calls would hardly turn the verdict: every bound is
    kept by its whole interval, or one is broken by its whole interval. None where a bound has no interval.
    `undecided` names the bounds that lie inside theirs, `doubt` says so in words where that leaves the
    verdict open, and `pictures_needed` how many would decide `max_drop`. `judged` are the bounds one by one.
    """

    accepted: bool
    reason: str
    repairable: bool = False
    decided: bool | None = None
    undecided: tuple[str, ...] = ()
    doubt: str = ""
    pictures_needed: int | None = None
    judged: tuple[Judged, ...] = ()


def judge(
    gate: Gate,
    *,
    candidate: Measurement,
    original: Measurement,
    before: Measurement | None = None,
    step: Paired | None = None,
    speed: Ratio | None = None,
) -> Verdict:
    """Judge `candidate` against `original` and, for `max_step_drop`, against `before`.

    `step` sets the candidate's answers against those of `before`, picture by picture, as `candidate.paired`
    does against the original's.

    Accuracy that was not measured is judged by agreement with the original where that is known (100 %
    agreement is no drop); a bound whose figures are missing is named as not measured and not held against the
    candidate. `speed` is the speed-up over the original with its interval. With the gate's `confidence` a
    bound on top-1 or speed that is not shown to be kept counts as missed.
    """
    level = gate.confidence or paired.CONFIDENCE
    reasons: list[str] = []
    bounds: list[tuple[bool, bool | None]] = []
    undecided: list[str] = []
    judged: list[Judged] = []
    unshown = "" if gate.confidence is None else f"not shown with {100 * level:g} % confidence"
    pairs = {"max_drop": candidate.paired, "max_step_drop": step}
    for name, bound, value, text in _figures(gate, candidate, original, before, pairs):
        shown = _shown(name, bound, pairs.get(name), speed=speed, level=level)
        if shown is False:
            undecided.append(name)
        if value is None:
            reasons.append(f"{name} not measured")
            bounds.append((True, None))
            judged.append(Judged(name, bound, False if unshown else None, "not measured"))
            continue
        met = value >= bound if name == "min_speedup" else value <= bound
        bounds.append((met, shown))
        reasons.append(text if met else f"{text}, {name} is {bound:.12g}")
        doubtful = met and bool(unshown) and shown is not True
        told = f"{text}, the bound is {bound:.12g}" + (f"; {unshown}" if doubtful else "")
        judged.append(Judged(name, bound, met and not doubtful, told))
    accepted = all(one.kept is not False for one in judged)
    needed = _needed(gate, candidate, level) if "max_drop" in undecided else None
    pictures = None if candidate.paired is None else candidate.paired.pictures
    decided = _decided(bounds)
    doubt = doubted(undecided, pictures=pictures, needed=needed) if decided is False else ""
    reason = "; ".join(reasons)
    if unshown and not accepted and all(met for met, _ in bounds):
        reason = f"{reason}; {unshown}{doubt and f': {doubt}'}"
    return Verdict(
        accepted,
        reason,
        decided=decided,
        undecided=tuple(undecided),
        doubt=doubt,
        pictures_needed=needed,
        judged=tuple(judged),
    )


def doubted(undecided: Sequence[str], *, pictures: int | None, needed: int | None) -> str:
    """Why a gate is not decided by the bounds in `undecided`, in words; "" where there are none."""
    parts = []
    if "max_drop" in undecided and pictures is not None:
        enough = "no number of them would do" if needed is None else f"about {_about(needed)} are needed"
        parts.append(f"not decidable with n = {pictures:,} pictures, {enough}")
    if "min_speedup" in undecided:
        parts.append("the speed-up's interval holds its bound")
    return "; ".join(parts)


def pictures_to_show(gate: Gate) -> int | None:
    """The fewest pictures that can show of a variant with the original's answers that it keeps the gate.

    None where it asks for no confidence or no accuracy, and where no number of pictures is enough.
    """
    if gate.confidence is None or gate.max_drop is None:
        return None
    return paired.fewest_pictures(gate.max_drop / 100, confidence=gate.confidence)


def drop(candidate: Measurement, original: Measurement) -> float | None:
    """Top-1 points lost against `original`; without labels, the percentage of answers that changed."""
    lost = None
    if candidate.top1 is not None and original.top1 is not None:
        lost = original.top1 - candidate.top1
    elif candidate.agreement is not None:
        lost = 100.0 - candidate.agreement
    # Ten pictures of a thousand are one point, not 1.0000000000000142.
    return None if lost is None else round(lost, 9)


def speedup(candidate: Measurement, original: Measurement) -> float | None:
    """How many times faster, by median latency."""
    if candidate.latency_ms is None or original.latency_ms is None:
        return None
    return original.latency_ms.p50 / candidate.latency_ms.p50


def _shown(name: str, bound: float, told: Paired | None, *, speed: Ratio | None, level: float) -> bool | None:
    """Whether a bound lies outside the interval of what it bounds; None without an interval."""
    if name == "max_size":
        return True
    if name == "min_speedup" and speed is not None:
        return not speed.low < bound <= speed.high
    if told is not None:
        low, high = paired.interval(told.lost, told.gained, told.pictures, confidence=level)
        return not 100 * low < -bound <= 100 * high
    return None


def _decided(bounds: Sequence[tuple[bool, bool | None]]) -> bool | None:
    """From (met, shown) of each bound: one shown to be broken decides, and so do all shown to be kept."""
    if any(shown and not met for met, shown in bounds):
        return True
    known = [shown for _, shown in bounds]
    if False in known:
        return False
    return True if known and None not in known else None


def _needed(gate: Gate, candidate: Measurement, level: float) -> int | None:
    told = candidate.paired
    if told is None or gate.max_drop is None:
        return None
    bound = -gate.max_drop / 100
    needed = paired.pictures_needed(told.lost, told.gained, told.pictures, bound=bound, confidence=level)
    return None if needed is None else max(needed, told.pictures + 1)


def _about(count: int) -> str:
    """Two digits of a count."""
    return f"{float(f'{count:.2g}'):,.0f}"


def _figures(
    gate: Gate,
    candidate: Measurement,
    original: Measurement,
    before: Measurement | None,
    pairs: Mapping[str, Paired | None],
) -> list[tuple[str, float, float | None, str]]:
    figures: list[tuple[str, float, float | None, str]] = []
    if gate.max_drop is not None:
        lost = drop(candidate, original)
        text = _lost(lost, candidate, original, "the original", pairs["max_drop"])
        figures.append(("max_drop", gate.max_drop, lost, text))
    if gate.max_step_drop is not None and before is not None:
        lost = drop(candidate, before)
        text = _lost(lost, candidate, before, "the variant before", pairs["max_step_drop"])
        figures.append(("max_step_drop", gate.max_step_drop, lost, text))
    if gate.min_speedup is not None:
        gained = speedup(candidate, original)
        figures.append(
            (
                "min_speedup",
                gate.min_speedup,
                gained,
                "" if gained is None else f"{_factor(gained, candidate, original)}× the original's speed",
            )
        )
    if gate.max_size is not None:
        size = candidate.size_bytes
        figures.append(("max_size", gate.max_size, size, "" if size is None else f"{size:,} bytes"))
    return figures


def _lost(
    lost: float | None, candidate: Measurement, against: Measurement, base: str, told: Paired | None
) -> str:
    if lost is None or (candidate.top1 is not None and against.top1 is not None):
        interval = "" if told is None or lost is None else f" ({points_between(told.low, told.high)})"
        return _points(lost, base) + interval
    pictures = candidate.synthetic_pictures
    on = "" if pictures is None else f" on {pictures} synthetic pictures"
    return f"no labels: {lost:.1f} % of the answers{on} are not the original's"


def _factor(gained: float, candidate: Measurement, original: Measurement) -> str:
    """A speed-up with the digits that both spreads leave."""
    timed = [one.latency_ms for one in (candidate, original) if one.latency_ms is not None]
    return significant(gained, digits(*(latency.spread for latency in timed)))


def _points(lost: float | None, base: str) -> str:
    if lost is None:
        return ""
    if not lost:
        return f"top-1 equal to {base}"
    size = f"{abs(lost):.1f}" if abs(lost) >= SMALLEST_POINTS else significant(abs(lost), 2)
    return f"top-1 {size} points {'below' if lost > 0 else 'above'} {base}"
