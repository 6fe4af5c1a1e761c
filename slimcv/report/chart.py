"""Accuracy against latency as an SVG picture, drawn by hand, as no charting library is a dependency."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

from slimcv.report import figures

WIDTH, HEIGHT = 760, 440
LEFT, RIGHT, TOP, BOTTOM = 70, 150, 50, 60
LETTER, LINE = 7, 15
"""Pixels that a letter and a line of a label take."""


@dataclass(frozen=True)
class Point:
    """A labelled point: milliseconds a prediction takes, and top-1 in percent."""

    label: str
    latency_ms: float
    top1: float


def accuracy_against_latency(points: Sequence[Point], *, title: str) -> str:
    """An SVG document: latency on a logarithmic axis, the points joined in their order.

    Labels move down or up until none covers another. Without points the axes are empty.
    """
    across = _Scale.logarithmic([point.latency_ms for point in points], LEFT, WIDTH - RIGHT)
    upward = _Scale.linear([point.top1 for point in points], HEIGHT - BOTTOM, TOP)
    places = [(across.place(math.log10(p.latency_ms)), upward.place(p.top1)) for p in points]
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        'font-family="sans-serif" font-size="12">',
        f"<title>{safe(title)}: top-1 against latency</title>",
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
        drawn_text(LEFT, 28, title, size=16),
        *_axes(across, upward),
        f'<polyline points="{path}" fill="none" stroke="#9db4c8" stroke-width="1.5"/>',
        *_dots(points, places),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


@dataclass(frozen=True)
class _Scale:
    """From values to pixels, and the values that get a line."""

    low: float
    high: float
    start: float
    end: float
    ticks: tuple[float, ...]

    @classmethod
    def logarithmic(cls, values: Sequence[float], start: float, end: float) -> _Scale:
        """In powers of ten of the values; lines at 1, 2 and 5."""
        exponents = [math.log10(value) for value in values] or [0.0, 1.0]
        low, high = min(exponents) - 0.1, max(exponents) + 0.1
        decades = range(math.floor(low), math.ceil(high) + 1)
        steps = [math.log10(digit) + decade for decade in decades for digit in (1, 2, 5)]
        return cls(low, high, start, end, tuple(step for step in steps if low <= step <= high))

    @classmethod
    def linear(cls, values: Sequence[float], start: float, end: float) -> _Scale:
        """With about six lines at round percentages."""
        lowest, highest = (min(values), max(values)) if values else (0.0, 100.0)
        margin = max(1.0, 0.1 * (highest - lowest))
        low, high = lowest - margin, highest + margin
        step = next(size for size in (0.5, 1, 2, 5, 10, 20, 50) if (high - low) / size <= 7 or size == 50)
        count = int((high - low) / step) + 1
        begin = math.ceil(low / step)
        ticks = (step * (begin + number) for number in range(count + 1))
        return cls(low, high, start, end, tuple(tick for tick in ticks if tick <= high))

    def place(self, value: float) -> float:
        """Where a value stands, in pixels."""
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)


def _axes(across: _Scale, upward: _Scale) -> Iterator[str]:
    floor = HEIGHT - BOTTOM
    for tick in across.ticks:
        x = across.place(tick)
        yield f'<line x1="{x:.1f}" y1="{TOP}" x2="{x:.1f}" y2="{floor}" stroke="#e6e6e6"/>'
        yield drawn_text(x, floor + 18, f"{figures.significant(10**tick, 1)} ms", anchor="middle")
    for tick in upward.ticks:
        y = upward.place(tick)
        yield f'<line x1="{LEFT}" y1="{y:.1f}" x2="{WIDTH - RIGHT}" y2="{y:.1f}" stroke="#e6e6e6"/>'
        yield drawn_text(LEFT - 8, y + 4, f"{tick:g} %", anchor="end")
    yield drawn_text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 15, "latency p50, batch 1", anchor="middle")
    yield drawn_text(LEFT, TOP - 8, "top-1")


def _dots(points: Sequence[Point], places: Sequence[tuple[float, float]]) -> Iterator[str]:
    taken: list[tuple[float, float, int]] = []
    for point, (x, y) in zip(points, places, strict=True):
        left, baseline = x + 9, _free(x + 9, y + 4, len(point.label), taken)
        taken.append((left, baseline, len(point.label)))
        told = f"{point.label}: {figures.milliseconds(point.latency_ms)}, {figures.percent(point.top1)}"
        yield (f'<circle cx="{x:.1f}" cy="{y:.1f}" r="5" fill="#1f6fb2"><title>{safe(told)}</title></circle>')
        yield drawn_text(left, baseline, point.label)


def _free(left: float, baseline: float, letters: int, taken: Sequence[tuple[float, float, int]]) -> float:
    """The baseline nearest to the wanted one at which a label covers no other and stays in the picture."""

    def covers(at: float) -> bool:
        return any(
            abs(at - other) < LINE and left < beside + LETTER * length and beside < left + LETTER * letters
            for beside, other, length in taken
        )

    distances = (sign * LINE * number for number in range(len(taken) + 2) for sign in (1, -1))
    wanted = (baseline + distance for distance in distances)
    return next((at for at in wanted if TOP < at < HEIGHT - BOTTOM and not covers(at)), baseline)


def drawn_text(
    x: float, y: float, text: str, *, anchor: str = "start", size: int = 12, colour: str = "#333"
) -> str:
    """A line of text as an SVG element, at its baseline."""
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}" fill="{colour}">'
        f"{safe(text)}</text>"
    )


def safe(text: str) -> str:
    """Foreign text for an SVG document."""
    return escape("".join(letter if letter.isprintable() else "\ufffd" for letter in text))
