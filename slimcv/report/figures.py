"""Numbers as people read them: humanised, rounded to what was measured, and never a made-up zero."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from slimcv.rounding import between, digits, meaningful, points_between, rounded, significant

__all__ = [
    "NOT_MEASURED", "between", "count", "digits", "duration", "factor", "meaningful", "milliseconds",
    "percent", "points", "points_between", "probability", "reduction", "rounded", "seen", "share",
    "significant", "size", "spread", "times",
]  # fmt: skip

NOT_MEASURED = "–"

_COUNT_UNITS = ("", " k", " M", " G", " T")
_BYTE_UNITS = (" B", " kB", " MB", " GB", " TB")


def _scaled(value: float, units: tuple[str, ...]) -> str:
    if abs(value) < 1000:
        return f"{value:.0f}{units[0]}"
    power = 0
    # 999.5 would be written as 1,000 with three digits, so it already belongs to the next unit.
    while abs(value) >= 999.5 and power < len(units) - 1:
        value /= 1000
        power += 1
    return significant(value) + units[power]


def count(value: float | None) -> str:
    """Parameters or MACs: 812, 295 k, 52.6 M, 2.64 G."""
    return NOT_MEASURED if value is None else _scaled(value, _COUNT_UNITS)


def size(value: float | None) -> str:
    """Bytes in powers of 1000: 512 B, 210 MB."""
    return NOT_MEASURED if value is None else _scaled(value, _BYTE_UNITS)


def seen(memory_bytes: int | None) -> int | None:
    """Memory of a model; zero says that it is too small to show in that of its process, not none."""
    return memory_bytes or None


def milliseconds(value: float | None, *, spread: float | None = None) -> str:
    """A latency with the digits that its relative spread leaves it, two where that is not known."""
    if value is None:
        return NOT_MEASURED
    return f"{significant(value, 2) if spread is None else rounded(value, value * spread)} ms"


def spread(value: float | None) -> str:
    """A relative spread (0 to 1 and more) as a percentage with two digits."""
    return NOT_MEASURED if value is None else f"{significant(100 * value, 2)} %"


def duration(seconds: float | None) -> str:
    """Wall time: < 0.1 s, 0.82 s, 42 s, 3 min 05 s, 1 h 02 min."""
    if seconds is None:
        return NOT_MEASURED
    if seconds < 0.095:
        return "< 0.1 s"
    if seconds < 59.5:
        return f"{significant(seconds, 2)} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def percent(value: float | None) -> str:
    """A percentage (0 to 100) with one decimal."""
    return NOT_MEASURED if value is None else f"{value:.1f} %"


def allocator(environment: Mapping[str, Any]) -> str:
    """How eager PyTorch got its memory on this machine, whose C library may have no allocator to tune."""
    known = environment.get("allocator_tunable", True)
    return "allocator tuned" if known else "allocator not tuned"


def share(value: float | None) -> str:
    """A fraction (0 to 1) as a percentage that says 100 or 0 only where it is exactly that."""
    if value is None:
        return NOT_MEASURED
    if 0 < value < 0.0005:
        return "< 0.1 %"
    if 0.9995 <= value < 1:
        return "> 99.9 %"
    return f"{value:.0%}".replace("%", " %") if value in (0, 1) else f"{100 * value:.1f} %"


def points(value: float | None) -> str:
    """A difference of two percentages: +1.5 points, −0.3 points, unchanged."""
    if value is None:
        return NOT_MEASURED
    if abs(value) < 0.05:
        return "unchanged" if value == 0 else "< 0.1 points"
    return f"{value:+.1f} points".replace("-", "−")


def reduction(before: float | None, after: float | None) -> str:
    """How much of a quantity went or was added: −99.7 %; −100 % only when nothing is left."""
    if before is None or after is None or before == 0:
        return NOT_MEASURED
    if before == after:
        return "unchanged"
    change = 100 * (after - before) / before
    if after == 0:
        return "−100 %"
    decimals = 1
    while decimals < 4 and (
        round(change, decimals) == -100 or (abs(change) < 0.1 and not round(change, decimals))
    ):
        decimals += 1
    return f"{change:+,.{decimals}f} %".replace("-", "−")


def times(ratio: float | None, more: str, less: str, *, digits: int = 3) -> str:
    """A factor in words: 43.2× faster, 1.32× slower, unchanged."""
    if ratio is None or ratio <= 0:
        return NOT_MEASURED
    text = significant(ratio if ratio >= 1 else 1 / ratio, digits)
    if float(text.replace(",", "")) == 1:
        return "unchanged"
    return f"{text}× {more if ratio > 1 else less}"


def factor(ratio: float, low: float, high: float, more: str, less: str) -> str:
    """The same with the words for above and below 1: 1.32× slower (1.28–1.36)."""
    return between(ratio, low, high, more) if ratio >= 1 else between(1 / ratio, 1 / high, 1 / low, less)


def probability(value: float) -> str:
    """A p-value with two digits, however small it is."""
    return "< 0.001" if value < 0.001 else significant(value, 2)


def p_value(value: float) -> str:
    """The same in a sentence: `p = 0.034`, `p < 0.001`."""
    told = probability(value)
    return f"p {told}" if told.startswith("<") else f"p = {told}"


def asked(synthetic: int | None) -> str:
    """What pictures agreement was found on, where they were made for it."""
    return "" if synthetic is None else f"{synthetic} synthetic pictures"
