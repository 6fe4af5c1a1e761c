"""Accuracy against latency, with the Pareto front and the gate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from slimcv.report import comparison, figures
from slimcv.report.charts import plane, scale
from slimcv.report.charts.plane import Bound, Line, Point
from slimcv.report.html.parts import Block, Cell, Chart, Table

VAL, TUNING = "val/", "tuning split"
"""The pictures that a variant was asked about."""


def blocks(report: Mapping[str, Any]) -> list[Block]:
    """All variants that were measured, by what they lost against the original on the same pictures."""
    points, measured_on = _points(report)
    if len(points) < 2:
        return []
    gate = report["gate"]
    bounds = []
    if gate["max_drop"] is not None:
        unit = "point" if gate["max_drop"] == 1 else "points"
        bounds.append(Bound(-gate["max_drop"], f"gate: at most {gate['max_drop']:g} {unit} lost"))
    base = report["original"]["latency_ms"]
    if gate["min_speedup"] is not None and base:
        name = f"gate: {gate['min_speedup']:g}× faster"
        bounds.append(Bound(base["p50"] / gate["min_speedup"], name, across=True))
    fronts = [
        [
            point
            for point, (on, _) in zip(points, measured_on, strict=True)
            if on == split or point.kind == "before"
        ]
        for split in (TUNING, VAL)
    ]
    labelled = report["original"]["top1"] is not None
    measure = "top-1" if labelled else "agreement"
    told = (
        f"Points lie by latency and by how far their {measure} is from the original's on the same pictures. "
        f"Squares are the final measurement{' on val/' if labelled else ''}, which the gate judges; circles "
        f"were measured during the run{', on the tuning split' if labelled else ''}; numbers are those of "
        "the steps. The lines are the Pareto fronts of both: nothing that was measured on the same pictures "
        "is both faster and more accurate."
    )
    key = (
        ("accepted", "accepted, or final"),
        ("rejected", "rejected"),
        ("before", "original"),
        ("front", "Pareto front"),
    )
    lines = tuple(
        (
            Cell(f"{point.mark}. {point.name}"),
            Cell(on),
            Cell(p50, point.x),
            Cell(figures.points(point.y), point.y),
        )
        for point, (on, p50) in zip(points, measured_on, strict=True)
    )
    table = Table(
        "Latency and accuracy of every variant",
        ("variant", "accuracy on", "latency p50", f"{measure} against the original"),
        lines,
        frozenset({0, 1}),
    )
    return [
        chart(
            f"{measure.capitalize()} against latency", told, points, table, bounds=bounds, key=key,
            upward=f"{measure} against the original, points", y_tick=_signed, alike=fronts,
        )
    ]  # fmt: skip


def chart(
    title: str,
    told: str,
    points: Sequence[Point],
    table: Table,
    *,
    upward: str,
    y_tick: Any,
    bounds: Sequence[Bound] = (),
    key: tuple[tuple[str, str], ...] = (),
    path: bool = False,
    alike: Sequence[Sequence[Point]] = (),
) -> Chart:
    """Points over latency on a logarithmic axis, with their Pareto front, or joined in their order.

    `alike` are the points that were measured alike, where that is not all of them: each has its own front.
    """
    x = scale.logarithmic(
        [*(point.x for point in points), *(bound.value for bound in bounds if bound.across)]
    )
    y = scale.linear([*(point.y for point in points), *(bound.value for bound in bounds if not bound.across)])
    lines = [Line(tuple(front(group)), "front", steps=True) for group in alike or (points,)]
    if path:
        lines.insert(0, Line(tuple((point.x, point.y) for point in points), "path"))
    drawn = plane.chart(
        x, y, points=points, lines=lines, bounds=bounds, x_tick=lambda value: f"{value:g} ms", y_tick=y_tick
    )
    return Chart(
        title,
        told,
        drawn,
        table,
        key=key,
        names=tuple((point.kind, point.mark, point.name) for point in points),
        axes=("latency p50, batch 1", upward),
    )


def front(points: Sequence[Point]) -> list[tuple[float, float]]:
    """Those points to which no other is both as fast and as accurate, from the fastest on."""
    found: list[tuple[float, float]] = []
    for point in sorted(points, key=lambda point: (point.x, -point.y)):
        if not found or point.y > found[-1][1]:
            found.append((point.x, point.y))
    return found


def _points(report: Mapping[str, Any]) -> tuple[list[Point], list[tuple[str, str]]]:
    """The points, and for each what its accuracy was measured on and its latency in words."""
    original, steps = report["original"], report["steps"]
    tuning = next((step["measurement"] for step in steps if step["name"] == "original"), None)
    points: list[Point] = []
    on: list[tuple[str, str]] = []

    def add(
        measured: Mapping[str, Any],
        base: Mapping[str, Any] | None,
        name: str,
        kind: str,
        at: int,
        *,
        final: bool,
    ) -> None:
        lost = _against(measured, base)
        if measured["latency_ms"] and lost is not None:
            points.append(Point(measured["latency_ms"]["p50"], lost, name, kind, str(at), square=final))
            on.append((VAL if final else TUNING, comparison.latency_of(measured)))

    add(original, original, f"original in {original['runtime']}", "before", 0, final=True)
    for step in steps:
        if step["name"] == "original" or not step["measurement"]:
            continue
        final = step["name"] == "ship"
        kind = "accepted" if step["outcome"] == "accepted" else "rejected"
        base = original if final else tuning
        name = "optimised" if final and kind == "accepted" else step["name"]
        add(step["measurement"], base, name, kind, step["number"], final=final)
    return points, on


def _against(measured: Mapping[str, Any], base: Mapping[str, Any] | None) -> float | None:
    """Points of top-1 above the original's; without labels, what is missing in agreement with it."""
    if base is None:
        return None
    if measured is base:
        return 0.0
    if measured["top1"] is not None and base["top1"] is not None:
        return float(measured["top1"] - base["top1"])
    return None if measured["agreement"] is None else float(measured["agreement"] - 100.0)


def _signed(value: float) -> str:
    return "0" if value == 0 else f"{value:+g}".replace("-", "−")
