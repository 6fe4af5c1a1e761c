"""What each step would save, as the rows of a table."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from slimcv.report import figures

HEADINGS = (
    "step", "ms", "ms saved", "speed", "weights saved", "weights", "epoch saved", "training", "note",
)  # fmt: skip
LEFT = 1

ON_A_TERMINAL = ("step", "ms", "ms saved", "speed", "weights saved", "training")
"""What there is room for in 80 columns; notes stand below."""

PICTURES = 1000
"""An epoch that `epoch saved` is told for has so many pictures."""

_WORTH = 1.05
"""A smaller gain is none that a prediction can tell."""

_NEARLY_ALL = 0.9
"""From this share of the changed layers on a prediction counts as timed."""

_LARGE_INPUT = 64
"""Pixels a side below which a picture has no resolution to give away."""

_DIGITS = 2
"""What a prediction is good for."""


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


def saved(one: Mapping[str, Any], what: str) -> float | None:
    """What a step saves of `ms`, `bytes` or `training_ms` (of a picture), None where that is not known."""
    key = {"training_ms": ("training_before_ms", "training_after_ms")}.get(
        what, (f"before_{what}", f"after_{what}")
    )
    before, after = one[key[0]], one[key[1]]
    return None if before is None or after is None else before - after


def gains(one: Mapping[str, Any], what: str) -> bool:
    """Whether a step saves more of `ms` or `bytes` than a prediction can be wrong by about nothing."""
    before, after = one[f"before_{what}"], one[f"after_{what}"]
    return after is not None and bool(before >= _WORTH * after)


def can_shrink(shape: Sequence[int]) -> bool:
    """Whether pictures of (channels, height, width) have resolution to give away."""
    return min(shape[1:]) >= _LARGE_INPUT


def _row(one: Mapping[str, Any]) -> tuple[str, ...]:
    after, trained = one["after_ms"], one["training_after_ms"]
    ratio = one["before_ms"] / after if after else None
    training = one["training_before_ms"] / max(trained, 1e-6) if one["training_before_ms"] else None
    seconds = saved(one, "training_ms")
    return (
        one["step"],
        figures.NOT_MEASURED if after is None else figures.significant(after, _DIGITS),
        _signed(saved(one, "ms"), ratio, lambda value: figures.significant(value, _DIGITS)),
        _times(ratio),
        _signed(saved(one, "bytes"), None, figures.size),
        figures.reduction(one["before_bytes"], one["after_bytes"]),
        _signed(None if seconds is None else PICTURES * seconds / 1000, training, figures.duration),
        _times(training),
        "; ".join(part for part in (one["verdict"], one["note"], _timed(one)) if part),
    )


def _timed(one: Mapping[str, Any]) -> str:
    """How much of the changed layers' time this rests on, where that is not nearly all."""
    if one["after_ms"] is None or one["timed_share"] >= _NEARLY_ALL:
        return ""
    return (
        f"{figures.share(one['timed_share'])} of the changed layers' time was timed, the rest taken for alike"
    )


def _times(ratio: float | None) -> str:
    return figures.times(ratio, "faster", "slower", digits=_DIGITS)


def _signed(value: float | None, ratio: float | None, shown: Callable[[float], str]) -> str:
    """A saving, with a minus where it is a loss; none where the ratio is 1 as far as can be told."""
    if value is None:
        return figures.NOT_MEASURED
    if value == 0 or _times(ratio) == "unchanged":
        return "none"
    return shown(value) if value > 0 else f"−{shown(-value)}"
