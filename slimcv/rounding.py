"""Numbers with as many digits as were measured, which a table as well as a record's reason prints."""

from __future__ import annotations

import math

_MOST_DIGITS = 3
_ONE_DIGIT_FROM = 3.55
"""Of an uncertainty from 3.55 on one digit counts, of a smaller one two (Particle Data Group, 5.3)."""


def significant(value: float, digits: int = 3) -> str:
    """A number with so many significant digits, never in scientific notation: 0.123, 1.23, 12.3, 1,230."""
    if value == 0:
        return "0"
    decimals = digits - 1 - math.floor(math.log10(abs(value)))
    rounded = round(value, decimals)
    # 9.996 rounds to 10.0: one digit more before the point, one fewer after it.
    decimals = digits - 1 - math.floor(math.log10(abs(rounded))) if rounded else decimals
    return f"{rounded:,.{max(decimals, 0)}f}".replace("-", "−")


def rounded(value: float, uncertainty: float) -> str:
    """A number with the digits that its uncertainty leaves it, three at most and one at least.

    The last digit stands where the uncertainty has its last one, which has two digits where they read below
    35 and one otherwise (Particle Data Group, Review of Particle Physics 2024, section 5.3).
    """
    return significant(value, meaningful(value, uncertainty))


def meaningful(value: float, uncertainty: float) -> int:
    """How many digits of a number its uncertainty leaves, one to three."""
    if value == 0 or uncertainty <= 0:
        return _MOST_DIGITS
    place = math.floor(math.log10(uncertainty))
    last = place - 1 if uncertainty / 10.0**place < _ONE_DIGIT_FROM else place
    return min(_MOST_DIGITS, max(1, math.floor(math.log10(abs(value))) - last + 1))


def digits(*spreads: float) -> int:
    """How many digits of a ratio of latencies with these relative spreads are meaningful."""
    return meaningful(1.0, math.hypot(*spreads))


def between(ratio: float, low: float, high: float, words: str = "") -> str:
    """A factor with its interval, all rounded to what that allows: 43.2× faster (42.8–43.9)."""
    text = significant(ratio, meaningful(ratio, (high - low) / 2))
    decimals = len(text.partition(".")[2])
    return f"{text}×{words and f' {words}'} ({low:,.{decimals}f}–{high:,.{decimals}f})"


def points_between(low: float, high: float) -> str:
    """The bounds of a difference of two percentages: −1.9 to +0.8 points."""
    return f"{low:+.1f} to {high:+.1f} points".replace("-", "−")
