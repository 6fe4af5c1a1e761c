"""The gate: what a variant must reach, and the verdict. Arithmetic on measurements, nothing else."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict, Field

if TYPE_CHECKING:
    from slimcv.results import Measurement


class Gate(BaseModel):
    """Bounds a variant must keep. None leaves a bound out.

    `max_drop`: top-1 points a variant may lie below the original, so that small drops cannot add up.
    `max_step_drop`: top-1 points a variant may lie below the one it was made from; the two saw the same
    pictures in training, which the original did not.
    `min_speedup`: the least ratio of the original's median latency to the variant's.
    `max_size`: the most bytes on disk.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_drop: float | None = Field(default=None, ge=0, le=100)
    max_step_drop: float | None = Field(default=None, ge=0, le=100)
    min_speedup: float | None = Field(default=None, gt=0)
    max_size: int | None = Field(default=None, gt=0)


@dataclass(frozen=True)
class Verdict:
    """Whether a gate is met, and why in the words of the report.

    `repairable` says of what was rejected that it is a gain, so that training it may be worth the while.
    """

    accepted: bool
    reason: str
    repairable: bool = False


def judge(
    gate: Gate, *, candidate: Measurement, original: Measurement, before: Measurement | None = None
) -> Verdict:
    """Judge `candidate` against `original` and, for `max_step_drop`, against `before`.

    Accuracy that was not measured is judged by agreement with the original where that is known (100 %
    agreement is no drop); a bound whose figures are missing is named as not measured and not held against the
    candidate.
    """
    reasons: list[str] = []
    accepted = True
    for name, bound, value, text in _figures(gate, candidate, original, before):
        if value is None:
            reasons.append(f"{name} not measured")
            continue
        met = value >= bound if name == "min_speedup" else value <= bound
        accepted = accepted and met
        reasons.append(text if met else f"{text}, {name} is {bound:.12g}")
    return Verdict(accepted, "; ".join(reasons))


def drop(candidate: Measurement, original: Measurement) -> float | None:
    """Top-1 points lost against `original`; without labels, the percentage of answers that changed."""
    if candidate.top1 is not None and original.top1 is not None:
        return original.top1 - candidate.top1
    if candidate.agreement is not None:
        return 100.0 - candidate.agreement
    return None


def speedup(candidate: Measurement, original: Measurement) -> float | None:
    """How many times faster, by median latency."""
    if candidate.latency_ms is None or original.latency_ms is None:
        return None
    return original.latency_ms.p50 / candidate.latency_ms.p50


def _figures(
    gate: Gate, candidate: Measurement, original: Measurement, before: Measurement | None
) -> list[tuple[str, float, float | None, str]]:
    figures: list[tuple[str, float, float | None, str]] = []
    if gate.max_drop is not None:
        lost = drop(candidate, original)
        figures.append(("max_drop", gate.max_drop, lost, _points(lost, "the original")))
    if gate.max_step_drop is not None and before is not None:
        lost = drop(candidate, before)
        figures.append(("max_step_drop", gate.max_step_drop, lost, _points(lost, "the variant before")))
    if gate.min_speedup is not None:
        gained = speedup(candidate, original)
        figures.append(
            (
                "min_speedup",
                gate.min_speedup,
                gained,
                "" if gained is None else f"{gained:.3g}× the original's speed",
            )
        )
    if gate.max_size is not None:
        size = candidate.size_bytes
        figures.append(("max_size", gate.max_size, size, "" if size is None else f"{size:,} bytes"))
    return figures


def _points(lost: float | None, base: str) -> str:
    if lost is None:
        return ""
    if lost <= 0:
        return f"top-1 {-lost:.1f} points above {base}" if lost < 0 else f"top-1 equal to {base}"
    return f"top-1 {lost:.1f} points below {base}"
