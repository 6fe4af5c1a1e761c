"""A chart of rows: a name, a strip of SVG on one common axis, and what it says in figures.

Names and figures are text of the page, which wraps; only the strips are drawn.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from slimcv.report.charts.scale import Scale

HEIGHT = 38
"""Pixels of a strip."""

_BAR = 13
_HALVES = ((7, 11), (20, 11))
"""Top and height of two bars one above the other."""


@dataclass(frozen=True)
class Row:
    """One row: its name, what more there is to say of it, the figure at its end, and its strip."""

    name: str
    figure: str
    strip: Markup
    more: str = ""


@dataclass(frozen=True)
class Rows:
    """A chart; `axis` is the strip with the numbers under it, `title` what they count."""

    rows: tuple[Row, ...]
    axis: Markup
    title: str


def chart(
    rows: Sequence[tuple[str, str, str, Markup]], scale: Scale, *, title: str, tick: Callable[[float], str]
) -> Rows:
    """Rows of (name, more, figure, marks) over one axis; `tick` writes the axis's numbers."""
    drawn = tuple(Row(name, figure, _strip(scale, marks), more) for name, more, figure, marks in rows)
    return Rows(drawn, _axis(scale, tick), title)


def bar(scale: Scale, start: float, end: float, kind: str) -> Markup:
    """A bar between two values, in whichever order they come."""
    return _rect(scale, start, end, (HEIGHT - _BAR) / 2, _BAR, kind)


def change(scale: Scale, before: float, after: float, kind: str) -> Markup:
    """A bar from one value to another, with a dot where it ends."""
    return bar(scale, before, after, kind) + Markup(
        '<circle cx="{:.2f}%" cy="{}" r="6" class="end {}"/>'
    ).format(scale.place(after), HEIGHT / 2, kind)


def pair(scale: Scale, before: float | None, after: float | None) -> Markup:
    """Two bars from zero, the original's above the result's."""
    bars = zip((before, after), ("before", "after"), _HALVES, strict=True)
    return Markup("").join(
        _rect(scale, 0.0, value, top, height, kind) for value, kind, (top, height) in bars if value
    )


def dumbbell(scale: Scale, before: float, after: float) -> Markup:
    """Two values and the way from one to the other."""
    middle = HEIGHT / 2
    first, second = scale.place(before), scale.place(after)
    kind = "better" if after > before else "worse" if after < before else "same"
    return Markup(
        '<line x1="{:.2f}%" x2="{:.2f}%" y1="{y}" y2="{y}" class="way {kind}"/>'
        '<circle cx="{:.2f}%" cy="{y}" r="5" class="before"/>'
        '<circle cx="{:.2f}%" cy="{y}" r="6" class="{kind}"/>'
    ).format(first, second, first, second, y=middle, kind=kind)


def spread(scale: Scale, samples: Sequence[float], *, quartiles: tuple[float, float, float]) -> Markup:
    """Every sample as a dot in the order it was taken, from top to bottom, over the middle half as a box."""
    low, middle, high = (scale.place(value) for value in quartiles)
    step = (HEIGHT - 8) / max(1, len(samples) - 1)
    dots = " ".join(
        f"M{scale.place(value):.2f} {100 * (4 + step * at) / HEIGHT:.1f}h0"
        for at, value in enumerate(samples)
    )
    return Markup(
        '<rect x="{:.2f}%" width="{:.2f}%" y="3" height="{}" rx="2" class="box"/>'
        '<svg width="100%" height="{h}" viewBox="0 0 100 100" preserveAspectRatio="none">'
        '<path d="{}" class="dots"/></svg>'
        '<line x1="{m:.2f}%" x2="{m:.2f}%" y1="2" y2="{}" class="median"/>'
    ).format(low, max(0.3, high - low), HEIGHT - 6, dots, HEIGHT - 2, h=HEIGHT, m=middle)


def stacked(parts: Sequence[tuple[str, float]]) -> Markup:
    """Shares of a whole side by side, each of (class, share of 100)."""
    found, at = [], 0.0
    for kind, share in parts:
        found.append(
            Markup('<rect x="{:.2f}%" width="{:.2f}%" y="8" height="22" class="{}"/>').format(at, share, kind)
        )
        at += share
    return Markup("").join(found)


def plain_strip(marks: Markup) -> Markup:
    """A strip without an axis."""
    return Markup('<svg class="strip" width="100%" height="{}">{}</svg>').format(HEIGHT, marks)


def _rect(scale: Scale, start: float, end: float, top: float, height: float, kind: str) -> Markup:
    low, high = sorted((scale.place(start), scale.place(end)))
    # What is there must be seen, however little it is.
    return Markup('<rect x="{:.2f}%" width="{:.2f}%" y="{}" height="{}" rx="2" class="{}"/>').format(
        low, max(0.35, high - low), top, height, kind
    )


def _strip(scale: Scale, marks: Markup) -> Markup:
    lines = Markup("").join(
        Markup('<line x1="{x:.2f}%" x2="{x:.2f}%" y1="0" y2="{}" class="grid"/>').format(
            HEIGHT, x=scale.place(tick)
        )
        for tick in scale.ticks
    )
    return plain_strip(lines + marks)


def _axis(scale: Scale, tick: Callable[[float], str]) -> Markup:
    words = Markup("").join(
        Markup('<text x="{:.2f}%" y="13" text-anchor="{}" class="{}">{}</text>').format(
            scale.place(value),
            _anchor(scale.place(value)),
            "minor" if value in scale.minor else "major",
            tick(value),
        )
        for value in scale.ticks
    )
    return Markup('<svg class="strip axis" width="100%" height="18">{}</svg>').format(words)


def _anchor(place: float) -> str:
    """Numbers at the ends stay inside."""
    return "start" if place < 4 else "end" if place > 96 else "middle"
