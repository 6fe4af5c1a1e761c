"""From values to places between 0 and 100, and the values that get a line."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

_STEPS = (1.0, 2.0, 2.5, 5.0, 10.0)


@dataclass(frozen=True)
class Scale:
    """An axis from `low` to `high`; on a logarithmic one all values are above zero."""

    low: float
    high: float
    ticks: tuple[float, ...]
    logarithmic: bool = False

    @property
    def minor(self) -> frozenset[float]:
        """The lines whose numbers a narrow screen has no room for."""
        if len(self.ticks) <= 5:
            return frozenset()
        if self.logarithmic:
            return frozenset(tick for tick in self.ticks if not math.log10(tick).is_integer())
        return frozenset(self.ticks[1::2])

    def place(self, value: float) -> float:
        """Where a value stands, 0 at the low end and 100 at the high one; outside it stands at the edge."""
        low, high = (
            (math.log10(self.low), math.log10(self.high)) if self.logarithmic else (self.low, self.high)
        )
        if self.logarithmic:
            value = math.log10(max(value, self.low))
        return min(100.0, max(0.0, 100.0 * (value - low) / (high - low)))


def linear(values: Sequence[float], *, zero: bool = False, lines: int = 5) -> Scale:
    """An axis that holds all values with a little air, with about so many lines at round numbers.

    With `zero` it begins there, as the length of a bar must.
    """
    lowest, highest = (min(values), max(values)) if values else (0.0, 1.0)
    if zero:
        lowest, highest = min(0.0, lowest), max(0.0, highest)
    if highest == lowest:
        highest = lowest + (abs(lowest) or 1.0)
    air = 0.06 * (highest - lowest)
    low = lowest if zero and lowest == 0 else lowest - air
    high = highest if zero and highest == 0 else highest + air
    step = _round_step((high - low) / lines)
    first = math.ceil(low / step)
    count = math.floor(high / step) - first + 1
    return Scale(low, high, tuple(round(step * (first + number), 12) for number in range(count)))


def logarithmic(values: Sequence[float]) -> Scale:
    """An axis in powers of ten, with lines at 1, 2 and 5, or at 1 alone over many decades."""
    exponents = [math.log10(value) for value in values if value > 0] or [0.0, 1.0]
    low, high = min(exponents) - 0.08, max(exponents) + 0.08
    digits = (1, 2, 5) if high - low < 2.5 else (1, 3) if high - low < 4 else (1,)
    ticks = [
        float(f"{digit}e{decade}")
        for decade in range(math.floor(low), math.ceil(high) + 1)
        for digit in digits
        if low <= math.log10(float(f"{digit}e{decade}")) <= high
    ]
    return Scale(10.0**low, 10.0**high, tuple(ticks), logarithmic=True)


def _round_step(least: float) -> float:
    """The smallest of 1, 2, 2.5 and 5 times a power of ten that is no smaller."""
    power = 10.0 ** math.floor(math.log10(least))
    return next(step * power for step in _STEPS if step * power >= least * (1 - 1e-9))
