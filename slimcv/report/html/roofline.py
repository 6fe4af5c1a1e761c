"""Layers under this machine's roofline: reached GFLOP/s over operations a byte (Williams et al. 2009)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from slimcv.report import figures
from slimcv.report.charts import plane, scale
from slimcv.report.charts.plane import Label, Line, Point
from slimcv.report.charts.scale import Scale
from slimcv.report.html.parts import Block, Cell, Chart, Table, plain

PRECISIONS = (("fp32_gflops", "fp32"), ("bf16_gflops", "bf16"), ("int8_gflops", "int8"))

SHOWN = 60
"""Of more layers only the slowest have a dot; the table has all."""

NAMED = 5
"""Of each network so many layers have a number and a name, the slowest."""

_SMALLEST, _LARGEST, _NUMBERED = 3.0, 14.0, 9.0
"""Radii in pixels: of a layer without time, of one with all of it, the least that has room for a number."""

_Layer = Mapping[str, Any]


@dataclass(frozen=True)
class Network:
    """Layers of a profile under one name; `kind` is the class of their dots."""

    name: str
    kind: str
    layers: Sequence[_Layer]


def blocks(limits: Mapping[str, Any] | None, networks: Sequence[Network], *, where: str) -> list[Block]:
    """The roofline with a dot a layer, its table, and the limits; `where` says what was timed in what."""
    if limits is None:
        return []
    drawn = [
        Network(one.name, one.kind, [layer for layer in one.layers if layer["gflops"] and layer["intensity"]])
        for one in networks
    ]
    if not any(one.layers for one in drawn):
        return []
    return [_chart(limits, drawn, where), _limits(limits)]


def _chart(limits: Mapping[str, Any], networks: Sequence[Network], where: str) -> Chart:
    dots = [layer for one in networks for layer in one.layers]
    peaks = [(limits[key], name) for key, name in PRECISIONS if limits[key]]
    bytes_a_second = limits["memory_gbytes"]
    ridges = [peak / bytes_a_second for peak, _ in peaks]
    x = scale.logarithmic([*(layer["intensity"] for layer in dots), *ridges])
    y = scale.logarithmic([*(layer["gflops"] for layer in dots), *(peak for peak, _ in peaks)])
    points, names = _points(networks)
    drawn = plane.chart(
        x,
        y,
        points=points,
        lines=[_roof(peak, bytes_a_second, x, y) for peak, _ in peaks],
        labels=[Label(x.high, peak, f"{name} {figures.significant(peak)} GFLOP/s") for peak, name in peaks],
        x_tick=lambda value: f"{value:g}",
        y_tick=lambda value: f"{value:g}",
    )
    told = (
        f"A dot is a layer, the larger the more of the time it takes; {where}. Higher is faster. The lines "
        "are what this machine can do at most: on the slope the memory is the limit, on the level the CPU. "
        "Squares are layers that wait for memory, circles those that wait for the CPU; the slowest have "
        "numbers. Both axes are logarithmic."
    )
    most = max(len(one.layers) for one in networks)
    if most > SHOWN:
        told += f" Drawn are the {SHOWN} slowest of {most} layers; the table has all."
    return Chart(
        "How near each layer comes to what this machine can do",
        told,
        drawn,
        _table(networks),
        key=(*((one.kind, one.name) for one in networks), ("roof", "this machine's limits")),
        names=names,
        axes=("operations a byte", "GFLOP/s"),
    )


def _roof(peak: float, bytes_a_second: float, x: Scale, y: Scale) -> Line:
    """Up the memory's slope, from where it comes into the picture, then level at the peak."""
    start = max(x.low, y.low / bytes_a_second)
    ridge = min(x.high, max(start, peak / bytes_a_second))
    return Line(
        tuple((at, min(peak, at * bytes_a_second)) for at in (start, ridge, x.high)),
        "roof",
    )


def _points(networks: Sequence[Network]) -> tuple[list[Point], tuple[tuple[str, str, str], ...]]:
    """A dot for each layer, the slowest with numbers; and the list of those numbers for a narrow screen."""
    points: list[Point] = []
    names: list[tuple[str, str, str]] = []
    for one in networks:
        slowest = sorted(one.layers, key=lambda layer: -layer["ms"])[:SHOWN]
        for place, layer in enumerate(slowest):
            radius = _SMALLEST + (_LARGEST - _SMALLEST) * math.sqrt(min(1.0, layer["share"]))
            mark = ""
            if place < NAMED:
                radius, mark = max(_NUMBERED, radius), str(len(names) + 1)
                names.append((one.kind, mark, str(layer["name"])))
            points.append(
                Point(
                    x=layer["intensity"],
                    y=layer["gflops"],
                    name=str(layer["name"]) if mark else "",
                    kind=one.kind if mark else f"{one.kind} faint",
                    mark=mark,
                    square=layer["bound"] == "memory",
                    radius=radius,
                )
            )
    # The numbered ones come last, so that no other covers them.
    return sorted(points, key=lambda point: bool(point.mark)), tuple(names)


def _table(networks: Sequence[Network]) -> Table:
    several = len(networks) > 1
    headings = ("layer", *(("network",) if several else ()), "kind", "time", "share", "GFLOP/s")
    return Table(
        "Every layer with products, and how much of its limit it reaches",
        (*headings, "operations a byte", "limit", "reached of it"),
        tuple(row for one in networks for row in _rows(one, several=several)),
        frozenset({0, 1, 2} if several else {0, 1}),
    )


def _rows(network: Network, *, several: bool) -> Iterator[tuple[Cell, ...]]:
    for layer in network.layers:
        yield (
            Cell(str(layer["name"])),
            *((Cell(network.name),) if several else ()),
            Cell(str(layer["kind"])),
            Cell(figures.milliseconds(layer["ms"]), layer["ms"]),
            Cell(figures.share(layer["share"]), layer["share"]),
            Cell(figures.significant(layer["gflops"]), layer["gflops"]),
            Cell(figures.significant(layer["intensity"]), layer["intensity"]),
            Cell("memory" if layer["bound"] == "memory" else "CPU"),
            Cell(f"{100 * layer['roofline_share']:.0f} %", layer["roofline_share"]),
        )


def _limits(limits: Mapping[str, Any]) -> Table:
    rows = [(name, f"{figures.significant(limits[key])} GFLOP/s") for key, name in PRECISIONS if limits[key]]
    missing = [(name, "no fast kernel here") for key, name in PRECISIONS if not limits[key]]
    memory = ("memory", f"{figures.significant(limits['memory_gbytes'])} GB/s")
    threads = f"{limits['threads']} thread{'s' if limits['threads'] != 1 else ''}"
    caption = f"What this machine reaches at most, {threads}, measured with large products and copies"
    return plain(caption, ("", "at most"), [*rows, *missing, memory])
