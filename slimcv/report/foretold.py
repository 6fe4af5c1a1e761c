"""What the steps of a run were foretold to gain, beside what was measured then."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from statistics import median
from typing import Any

from slimcv.report import figures

HEADINGS = (
    "step", "foretold", "measured", "off by", "weights, foretold", "file, measured", "bytes off by",
    "of the changed time timed", "training, foretold", "training, measured", "training off by", "why",
)  # fmt: skip

DIGITS = 2
"""What a prediction is good for."""


@dataclass(frozen=True)
class Foretold:
    """One step's speed-up as foretold from its layers and as measured, and what was said with it.

    `error` is |foretold / measured - 1|, `timed_share` (0 to 1) the part of the changed layers' time whose
    new form had been timed; `spread` is the relative uncertainty of what was measured. `weights` are the
    bytes of the weights before and after as foretold, `file` those of the measured files. `training` is how
    many times faster a picture's gradient is, as foretold and as measured. None is not known.
    """

    step: str
    foretold: float
    measured: float
    spread: float
    timed_share: float
    verdict: str
    weights: tuple[int, int] | None
    file: tuple[int, int] | None
    training: tuple[float, float] | None

    @property
    def error(self) -> float:
        """How far off, as a fraction."""
        return abs(self.foretold / self.measured - 1)

    @property
    def bytes_error(self) -> float | None:
        """How far off the share of the bytes that is left, as a fraction."""
        if self.weights is None or self.file is None:
            return None
        return abs((self.weights[1] / self.weights[0]) / (self.file[1] / self.file[0]) - 1)

    @property
    def training_error(self) -> float | None:
        """How far off the gradient's speed-up, as a fraction."""
        return None if self.training is None else abs(self.training[0] / self.training[1] - 1)


@dataclass(frozen=True)
class Unforetold:
    """One step that was timed and not foretold: its speed-up, that one's spread, its files, and why."""

    step: str
    measured: float
    spread: float
    file: tuple[int, int] | None
    why: str


def of(report: Mapping[str, Any]) -> list[Foretold]:
    """A row for each step of a run that was foretold and timed, in their order."""
    found = []
    for step in _timed(report):
        told = step["details"].get("foretold")
        if told:
            found.append(
                Foretold(
                    step=_name(step),
                    foretold=told["speedup"],
                    measured=_speedup(step),
                    spread=_spread(step),
                    timed_share=told["timed_share"],
                    verdict=told.get("verdict", ""),
                    weights=_both(told.get("before_bytes"), told.get("weight_bytes")),
                    file=_file(step),
                    training=_training(step["details"]),
                )
            )
    return found


def unforetold(report: Mapping[str, Any]) -> list[Unforetold]:
    """A row for each step of a run that was timed and not foretold, as far as the run says why."""
    return [
        Unforetold(_name(step), _speedup(step), _spread(step), _file(step), step["details"]["not_foretold"])
        for step in _timed(report)
        if step["details"].get("not_foretold")
    ]


def rows(report: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """The same in words: what was foretold, then what was not and why."""
    foretold: list[tuple[str, ...]] = [
        (
            one.step,
            _times(one.foretold),
            measured(one),
            off(one.error),
            reduction(one.weights),
            reduction(one.file),
            off(one.bytes_error),
            figures.share(one.timed_share),
            *gradient(one),
            off(one.training_error),
            one.verdict,
        )
        for one in of(report)
    ]
    none = figures.NOT_MEASURED
    return foretold + [
        (
            one.step,
            none,
            measured(one),
            none,
            none,
            reduction(one.file),
            none,
            none,
            none,
            none,
            none,
            f"not foretold: {one.why}",
        )
        for one in unforetold(report)
    ]


def measured(one: Foretold | Unforetold) -> str:
    """The measured speed-up with the digits that its spread leaves."""
    return f"{figures.rounded(one.measured, one.spread * one.measured)}×"


def gradient(one: Foretold) -> tuple[str, str]:
    """How many times faster a gradient was foretold to be, and is."""
    if one.training is None:
        return figures.NOT_MEASURED, figures.NOT_MEASURED
    return _times(one.training[0]), _times(one.training[1])


def off(error: float | None) -> str:
    """An error (a fraction) in whole percent."""
    return figures.NOT_MEASURED if error is None else f"{100 * error:.0f} %"


def reduction(bytes: tuple[int, int] | None) -> str:
    """What became of the bytes: −75.0 %."""
    return figures.NOT_MEASURED if bytes is None else figures.reduction(*bytes)


def sentence(report: Mapping[str, Any]) -> str:
    """How far off the predictions were; empty where there were none."""
    found = of(report)
    if not found:
        return ""
    steps = f"{len(found)} steps" if len(found) > 1 else "one step"
    many = "the median error is " if len(found) > 1 else "off by "
    told = f"the gain of {steps} was foretold from the times of layers: {many}"
    bytes = [one.bytes_error for one in found if one.bytes_error is not None]
    told += off(median(one.error for one in found))
    told += f", that of the bytes left {off(median(bytes))}" if bytes else ""
    trained = [one.training_error for one in found if one.training_error is not None]
    return f"{told}, that of a gradient in training {off(median(trained))}" if trained else told


def left_out(report: Mapping[str, Any]) -> str:
    """Which steps were timed and not foretold, by reason; empty where all were."""
    reasons: dict[str, list[str]] = {}
    for one in unforetold(report):
        reasons.setdefault(one.why, []).append(one.step)
    told = "; ".join(f"{', '.join(steps)} ({why})" for why, steps in reasons.items())
    return f"not foretold: {told}" if told else ""


def _timed(report: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [
        step
        for step in report["steps"]
        if all((step[key] or {}).get("latency_ms") for key in ("before", "measurement"))
    ]


def _name(step: Mapping[str, Any]) -> str:
    return f"{step['number']}. {step['name']}"


def _speedup(step: Mapping[str, Any]) -> float:
    return float(step["before"]["latency_ms"]["p50"] / step["measurement"]["latency_ms"]["p50"])


def _spread(step: Mapping[str, Any]) -> float:
    before, after = (step[key]["latency_ms"]["spread"] for key in ("before", "measurement"))
    return float((before**2 + after**2) ** 0.5)


def _file(step: Mapping[str, Any]) -> tuple[int, int] | None:
    return _both(step["before"]["size_bytes"], step["measurement"]["size_bytes"])


def _training(details: Mapping[str, Any]) -> tuple[float, float] | None:
    """A gradient's speed-up: what changed layers were foretold to save of the measured time, and measured."""
    told, measured = details["foretold"], details.get("gradients")
    if measured is None:
        return None
    left = measured["before_ms"] - (told["training_before_ms"] - told["training_after_ms"])
    return (measured["before_ms"] / left, measured["before_ms"] / measured["after_ms"]) if left > 0 else None


def _times(speedup: float) -> str:
    return f"{figures.significant(speedup, DIGITS)}×"


def _both(before: int | None, after: int | None) -> tuple[int, int] | None:
    """Two sizes to be compared, None where one is not known."""
    return (before, after) if before and after else None
