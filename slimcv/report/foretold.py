"""What the steps of a run were foretold to gain, beside what was measured then."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from statistics import median
from typing import Any

from slimcv.report import figures

HEADINGS = ("step", "foretold", "measured", "off by", "of the changed time timed", "why")
LEFT = 1

DIGITS = 2
"""What a prediction is good for."""


@dataclass(frozen=True)
class Foretold:
    """One step's speed-up as foretold from its layers and as measured, and what was said with it.

    `error` is |foretold / measured - 1|, `timed_share` (0 to 1) the part of the changed layers' time whose
    new form had been timed; `spread` is the relative uncertainty of what was measured.
    """

    step: str
    foretold: float
    measured: float
    spread: float
    timed_share: float
    verdict: str

    @property
    def error(self) -> float:
        """How far off, as a fraction."""
        return abs(self.foretold / self.measured - 1)


def of(report: Mapping[str, Any]) -> list[Foretold]:
    """A row for each step of a run that was foretold and timed, in their order."""
    found = []
    for step in report["steps"]:
        told = step["details"].get("foretold")
        before, after = ((step[key] or {}).get("latency_ms") for key in ("before", "measurement"))
        if not told or not before or not after:
            continue
        found.append(
            Foretold(
                step=f"{step['number']}. {step['name']}",
                foretold=told["speedup"],
                measured=before["p50"] / after["p50"],
                spread=(before["spread"] ** 2 + after["spread"] ** 2) ** 0.5,
                timed_share=told["timed_share"],
                verdict=told.get("verdict", ""),
            )
        )
    return found


def rows(report: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """The same in words."""
    return [
        (
            one.step,
            f"{figures.significant(one.foretold, DIGITS)}×",
            measured(one),
            f"{100 * one.error:.0f} %",
            figures.share(one.timed_share),
            one.verdict,
        )
        for one in of(report)
    ]


def measured(one: Foretold) -> str:
    """The measured speed-up with the digits that its spread leaves."""
    return f"{figures.rounded(one.measured, one.spread * one.measured)}×"


def sentence(report: Mapping[str, Any]) -> str:
    """How far off the predictions were; empty where there were none."""
    found = of(report)
    if not found:
        return ""
    off = f"{100 * median(one.error for one in found):.0f} %"
    steps = f"{len(found)} steps" if len(found) > 1 else "one step"
    many = "the median error is " if len(found) > 1 else "off by "
    return f"the gain of {steps} was foretold from the times of layers: {many}{off}"
