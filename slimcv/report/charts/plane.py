"""A chart of two axes: points with names, lines and bounds."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from slimcv.report.charts.scale import Scale

TOP, BOTTOM, HEIGHT = 14, 290, 316
LEFT, RIGHT = 11.0, 97.0
"""The plotted area: pixels down, percent across."""

_LETTER, _LINE = 0.72, 15
"""What a letter (percent) and a line (pixels) of a name take where the page is wide."""


@dataclass(frozen=True)
class Point:
    """A named point; `kind` is its class, `square` its form, `mark` the number or letter in it.

    Points without a name or a mark have none; a smaller `radius` (pixels) has no room for a mark.
    """

    x: float
    y: float
    name: str
    kind: str
    mark: str
    square: bool = False
    radius: float = 9.0


@dataclass(frozen=True)
class Line:
    """Points joined in their order; with `steps` first across, then up or down."""

    points: tuple[tuple[float, float], ...]
    kind: str
    steps: bool = False


@dataclass(frozen=True)
class Bound:
    """A value that separates what is allowed, on the axis across or on that upward."""

    value: float
    name: str
    across: bool = False


@dataclass(frozen=True)
class Label:
    """Words above a place, set to its left."""

    x: float
    y: float
    words: str


def chart(
    x: Scale,
    y: Scale,
    *,
    points: Sequence[Point] = (),
    lines: Sequence[Line] = (),
    bounds: Sequence[Bound] = (),
    labels: Sequence[Label] = (),
    x_tick: Callable[[float], str],
    y_tick: Callable[[float], str],
) -> Markup:
    """The SVG of a chart; points are named where there is room."""
    parts = [
        *_grid(x, y, x_tick, y_tick),
        *(_bound(bound, x, y) for bound in bounds),
        _area(Markup("").join(_line(line, x, y) for line in lines)),
        *(_label(label, x, y) for label in labels),
        *_points(points, x, y),
    ]
    return Markup('<svg class="plane" width="100%" height="{}">{}</svg>').format(
        HEIGHT, Markup("").join(parts)
    )


def _across(scale: Scale, value: float) -> float:
    return LEFT + (RIGHT - LEFT) * scale.place(value) / 100


def _down(scale: Scale, value: float) -> float:
    return BOTTOM - (BOTTOM - TOP) * scale.place(value) / 100


def _grid(
    x: Scale, y: Scale, x_tick: Callable[[float], str], y_tick: Callable[[float], str]
) -> Iterator[Markup]:
    for tick in x.ticks:
        yield Markup(
            '<line x1="{at:.2f}%" x2="{at:.2f}%" y1="{}" y2="{}" class="grid"/>'
            '<text x="{at:.2f}%" y="{}" text-anchor="middle" class="{}">{}</text>'
        ).format(
            TOP,
            BOTTOM,
            BOTTOM + 18,
            "minor" if tick in x.minor else "major",
            x_tick(tick),
            at=_across(x, tick),
        )
    for tick in y.ticks:
        yield Markup(
            '<line x1="{}%" x2="{}%" y1="{at:.1f}" y2="{at:.1f}" class="grid"/>'
            '<text x="{}%" y="{:.1f}" text-anchor="end">{}</text>'
        ).format(LEFT, RIGHT, LEFT - 1, _down(y, tick) + 4, y_tick(tick), at=_down(y, tick))


def _bound(bound: Bound, x: Scale, y: Scale) -> Markup:
    if bound.across:
        at = _across(x, bound.value)
        return Markup(
            '<line x1="{at:.2f}%" x2="{at:.2f}%" y1="{}" y2="{}" class="bound"/>'
            '<text x="{at:.2f}%" y="{}" dx="{}" text-anchor="{}" class="bound-name">{}</text>'
        ).format(TOP, BOTTOM, BOTTOM - 8, *((-6, "end") if at > 60 else (6, "start")), bound.name, at=at)
    down = _down(y, bound.value)
    return Markup(
        '<line x1="{}%" x2="{}%" y1="{at:.1f}" y2="{at:.1f}" class="bound"/>'
        '<text x="{}%" y="{:.1f}" text-anchor="end" class="bound-name">{}</text>'
    ).format(LEFT, RIGHT, RIGHT, down + 14 if down < BOTTOM - 20 else down - 6, bound.name, at=down)


def _label(label: Label, x: Scale, y: Scale) -> Markup:
    return Markup('<text x="{:.2f}%" y="{:.1f}" text-anchor="end" class="roof-name">{}</text>').format(
        _across(x, label.x), _down(y, label.y) - 5, label.words
    )


def _area(marks: Markup) -> Markup:
    """The plotted area stretched to 100 by 100, in which paths can be written, strokes unstretched."""
    return Markup(
        '<svg x="{}%" width="{}%" y="{}" height="{}" viewBox="0 0 100 100" preserveAspectRatio="none" '
        'overflow="visible">{}</svg>'
    ).format(LEFT, RIGHT - LEFT, TOP, BOTTOM - TOP, marks)


def _line(line: Line, x: Scale, y: Scale) -> Markup:
    places = [(x.place(across), 100 - y.place(up)) for across, up in line.points]
    if not places:
        return Markup("")
    words = [f"M{places[0][0]:.2f} {places[0][1]:.2f}"]
    for across, down in places[1:]:
        words.append(f"H{across:.2f}V{down:.2f}" if line.steps else f"L{across:.2f} {down:.2f}")
    return Markup('<path d="{}" class="line {}"/>').format("".join(words), line.kind)


def _points(points: Sequence[Point], x: Scale, y: Scale) -> Iterator[Markup]:
    taken: list[tuple[float, float, float]] = [
        (_across(x, point.x) - 1, _down(y, point.y) + 4, 2.0) for point in points
    ]
    # The final figures get their names first.
    for point in sorted(points, key=lambda point: not point.square):
        across, down = _across(x, point.x), _down(y, point.y)
        half = point.radius - 0.5
        form = (
            Markup('<rect x="-{0:g}" y="-{0:g}" width="{1:g}" height="{1:g}" rx="2" class="{2}"/>').format(
                half, 2 * half, point.kind
            )
            if point.square
            else Markup('<circle r="{:g}" class="{}"/>').format(point.radius, point.kind)
        )
        width = _LETTER * len(point.name)
        # Where the name would leave the picture on the right it stands on the left.
        turned = across + 2 + width > 100
        left = across - 2 - width if turned else across + 2
        baseline = _free(left, down + 4, width, taken) if point.name else None
        if baseline is not None:
            taken.append((left, baseline, width))
            yield Markup(
                '<text x="{:.2f}%" y="{:.1f}" dx="{}" text-anchor="{}" class="name">{}</text>'
            ).format(across, baseline, -14 if turned else 14, "end" if turned else "start", point.name)
        mark = (
            Markup('<text y="4" text-anchor="middle" class="number {}">{}</text>').format(
                point.kind, point.mark
            )
            if point.mark
            else Markup("")
        )
        yield Markup('<svg x="{:.2f}%" y="{:.1f}" overflow="visible" class="point">{}{}</svg>').format(
            across, down, form, mark
        )


def _free(
    left: float, wanted: float, width: float, taken: Sequence[tuple[float, float, float]]
) -> float | None:
    """The baseline near the wanted one at which a name covers no other and no point, None without one."""

    def covers(at: float) -> bool:
        return any(
            abs(at - other) < _LINE and left < beside + length and beside < left + width
            for beside, other, length in taken
        )

    places = (wanted + sign * _LINE * number for number in range(3) for sign in (-1, 1))
    return next((at for at in places if TOP + 8 < at < BOTTOM and not covers(at)), None)
