"""The page of a comparison by `slimcv bench`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from slimcv.report import figures, sentences
from slimcv.report.bench import ONE_CALL, against_the_first, rate, ratio_of, without_top1
from slimcv.report.charts.plane import Point
from slimcv.report.html import accuracy, repeating
from slimcv.report.html.ladder import bars, milliseconds
from slimcv.report.html.parts import Block, Cell, Page, Sections, Table, Tile
from slimcv.report.reading import Finished

_Row = Mapping[str, Any]


_TARGET = ("target", "runs in", "threads", "batch", "streams")
"""What a row of either table begins with."""


def page(found: Finished) -> Page:
    """Every target with its figures, their latencies, and their accuracy where it was measured."""
    document = found.document
    timed = [row for row in document["rows"] if row["problem"] is None]
    sections = Sections()
    sections.add("targets", "Every target", [_speeds(document["rows"]), _costs(document["rows"])])
    sections.add("speed", "Latency and throughput", _speed(timed))
    sections.add("accuracy", "Accuracy against latency", _accuracy(timed))
    sections.add("repeat", "How to repeat it", repeating.blocks(document))
    return Page(
        title="Timed against each other",
        lead=f"{len(document['rows'])} rows in {document['mode']} mode, interleaved; all against the first.",
        tiles=_tiles(timed),
        sections=tuple(sections.found),
        foot=f"{figures.NOT_MEASURED} stands for not measured. In brackets the 95 % interval.",
    )


def _tiles(timed: list[_Row]) -> tuple[Tile, ...]:
    known = [(ratio, row) for row in timed[1:] if (ratio := ratio_of(row))]
    if not known:
        return ()
    ratio, best = max(known, key=lambda each: float(each[0]["value"]))
    told = figures.factor(ratio["value"], ratio["low"], ratio["high"], "faster", "slower")
    faster, _, bounds = told.partition(" (")
    return (Tile(faster, best["name"], f"95 % interval {bounds.rstrip(')')}×"),)


def _name(row: _Row) -> str:
    return f"{row['name']}, {row['threads']} threads, batch {row['batch']}".replace(" 1 threads", " 1 thread")


def _speeds(rows: list[_Row]) -> Table:
    headings = (
        *_TARGET, "p50", "p90", "p99", "spread", "against the first", "images/s", "spread of images/s",
    )  # fmt: skip
    lines = []
    for row in rows:
        ratio = ratio_of(row)
        speed, spread, rates = row["throughput_ips"], row["spread"], row.get("throughput_spread")
        lines.append(
            (
                *_target(row),
                *(
                    Cell(figures.milliseconds(row[key], spread=spread), row[key])
                    for key in ("p50_ms", "p90_ms", "p99_ms")
                ),
                Cell(figures.spread(spread), spread),
                Cell(against_the_first(row) or figures.NOT_MEASURED, ratio["value"] if ratio else None),
                Cell(figures.NOT_MEASURED if speed is None else rate(row), speed),
                Cell(figures.spread(rates), rates),
            )
        )
    return Table("How fast", headings, tuple(lines), frozenset({0, 1}))


def _costs(rows: list[_Row]) -> Table:
    headings = (
        *_TARGET, "load", "first call", "memory", "size", "top-1", "top-1 against the first", "problem",
    )  # fmt: skip
    lines = tuple(
        (
            *_target(row),
            Cell(figures.duration(row["load_seconds"]), row["load_seconds"]),
            Cell(figures.milliseconds(row["first_call_ms"], spread=ONE_CALL), row["first_call_ms"]),
            Cell(figures.size(row["model_bytes"]), row["model_bytes"]),
            Cell(figures.size(row["size_bytes"]), row["size_bytes"]),
            Cell(figures.percent(row["top1"]), row["top1"]),
            Cell(sentences.paired(row.get("paired")), (row.get("paired") or {}).get("difference")),
            Cell(row["problem"] or without_top1(row)),
        )
        for row in rows
    )
    caption = "What it takes and what it answers; memory is that over the runtime's own"
    return Table(caption, headings, lines, frozenset({0, 1, len(headings) - 1}))


def _target(row: _Row) -> tuple[Cell, ...]:
    return (
        Cell(row["name"]),
        Cell(f"{row['runtime']} {row['precision'] or ''}"),
        Cell(str(row["threads"]), row["threads"]),
        Cell(str(row["batch"]), row["batch"]),
        Cell(str(row["streams"]), row["streams"]),
    )


def _speed(timed: list[_Row]) -> list[Block]:
    if len(timed) < 2:
        return []
    latencies = [(_name(row), float(row["p50_ms"]), _p50(row)) for row in timed]
    speeds = [(_name(row), float(row["throughput_ips"]), rate(row)) for row in timed]
    return [
        bars("Latency of a call", "latency p50", latencies, tick=milliseconds, first="target"),
        bars("Throughput", "images/s", speeds, tick=figures.significant, first="target"),
    ]


def _p50(row: _Row) -> str:
    return figures.milliseconds(row["p50_ms"], spread=row["spread"])


def _accuracy(timed: list[_Row]) -> list[Block]:
    known = [(at, row) for at, row in enumerate(timed) if row["top1"] is not None]
    points = [
        Point(row["p50_ms"], row["top1"], _name(row), "before" if at == 0 else "accepted", str(at + 1))
        for at, row in known
    ]
    if len(points) < 2:
        return []
    lines = tuple(
        (
            Cell(_name(row)),
            Cell(_p50(row), row["p50_ms"]),
            Cell(figures.percent(row["top1"]), row["top1"]),
        )
        for _, row in known
    )
    return [
        accuracy.chart(
            "Top-1 against latency",
            "A point a target; the line is the Pareto front.",
            points,
            Table("Latency and accuracy of each target", ("target", "latency p50", "top-1"), lines),
            upward="top-1",
            y_tick=lambda value: f"{value:g} %",
        )
    ]
