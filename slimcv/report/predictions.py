"""What each step would save, as the rows of a table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from slimcv.report import figures

HEADINGS = ("step", "ms", "", "weights", "training", "")
LEFT = 1


def rows(profile: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """A row for each step that something is known of, the largest saving of time first."""
    return [_row(one) for one in profile["predictions"] if one["problem"] is None]


def left_out(profile: Mapping[str, Any]) -> str:
    """The steps without a prediction, each with the reason."""
    reasons: dict[str, list[str]] = {}
    for one in profile["predictions"]:
        if one["problem"] is not None:
            reasons.setdefault(one["problem"], []).append(one["step"])
    return "; ".join(f"{', '.join(steps)}: {reason}" for reason, steps in reasons.items())


def _row(one: Mapping[str, Any]) -> tuple[str, ...]:
    after = one["after_ms"]
    gain = (
        figures.NOT_MEASURED
        if not after
        else figures.times(one["before_ms"] / after, "faster", "slower", digits=2)
    )
    trained = figures.NOT_MEASURED
    if one["training_before_ms"]:
        ratio = one["training_before_ms"] / max(one["training_after_ms"], 1e-6)
        trained = figures.times(ratio, "faster", "slower", digits=2)
    return (
        one["step"],
        figures.NOT_MEASURED if after is None else figures.significant(after, 2),
        gain,
        figures.reduction(one["before_bytes"], one["after_bytes"]),
        trained,
        "; ".join(part for part in (one["verdict"], one["note"]) if part),
    )
