"""The page of a ladder: what each technique gives, row upon row."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from slimcv.report import figures, sentences
from slimcv.report.charts import rows, scale
from slimcv.report.charts.plane import Point
from slimcv.report.html import accuracy, repeating
from slimcv.report.html.parts import (
    Block,
    Cell,
    Chart,
    Code,
    Facts,
    Note,
    Page,
    Sections,
    Table,
    Tile,
    count,
    percent,
    size,
)  # fmt: skip
from slimcv.report.ladder import method, p50
from slimcv.report.reading import Finished

_Row = Mapping[str, Any]


def page(found: Finished) -> Page:
    """Rows, top-1 against latency, and what each row costs."""
    ladder = found.document
    every = ladder["rows"]
    measured = [row for row in every if row["measurement"] is not None]
    sections = Sections()
    sections.add("rows", "Row upon row", [_reached(every), _taken(every), *_notes(ladder)])
    sections.add("accuracy", "Accuracy against latency", _accuracy(measured))
    sections.add("costs", "What each row costs", _costs(measured))
    sections.add("repeat", "How to repeat it", _repeat(ladder))
    return Page(
        title=f"{found.name}, row upon row",
        lead=(
            f"What each technique gives this network, in {figures.duration(ladder['seconds'])}; each row "
            "stands on "
            "those above it."
        ),
        tiles=_tiles(measured),
        sections=tuple(sections.found),
        foot=f"{figures.NOT_MEASURED} stands for not measured.",
    )


def _tiles(measured: list[_Row]) -> tuple[Tile, ...]:
    timed = [row for row in measured[1:] if row["ratios"].get("latency_p50")]
    if not timed:
        return ()
    best = max(timed, key=lambda row: row["ratios"]["latency_p50"])
    ratios, paired = best["ratios"], best["measurement"].get("paired")
    faster, _, bounds = _speed(best, measured[0], "faster", "slower").partition(" (")
    tiles = [
        Tile(
            faster,
            f"with {best['title']}: {p50(best)}",
            f"95 % interval {bounds.rstrip(')')}×" if bounds else "",
        ),
        Tile(figures.times(ratios["parameters"], "less", "more"), "parameters"),
    ]
    if ratios["top1"] is not None:
        told = f"top-1 {figures.percent(best['measurement']['top1'])}"
        _, _, sure = sentences.paired(paired).partition(" (")
        tiles.append(
            Tile(
                figures.points(ratios["top1"]), told, f"95 % interval {sure.replace(')', '')}" if sure else ""
            )
        )
    return tuple(tiles)


def _speed(row: _Row, first: _Row, more: str = "", less: str = "") -> str:
    """How many times as fast as the first row, with the interval or with the digits of both spreads."""
    ratios = row["ratios"]
    ratio, low, high = (ratios.get(f"latency_p50{end}") for end in ("", "_low", "_high"))
    if ratio is None:
        return figures.NOT_MEASURED
    if low is not None and high is not None:
        return figures.factor(ratio, low, high, more, less) if more else figures.between(ratio, low, high)
    digits = figures.digits(*(one["measurement"]["latency_ms"]["spread"] for one in (row, first)))
    return (
        figures.times(ratio, more, less, digits=digits) if more else f"{figures.significant(ratio, digits)}×"
    )


def _reached(every: list[_Row]) -> Table:
    headings = (
        "row", "runs in", "top-1", "against the first", "latency p50", "speed", "parameters", "MACs", "size",
    )  # fmt: skip
    lines, first = [], every[0]
    for row in every:
        measured = row["measurement"]
        if measured is None:
            lines.append(_unmeasured(row, headings))
            continue
        paired = measured.get("paired")
        lines.append(
            (
                Cell(row["title"]),
                Cell(f"{measured['runtime']} {measured['precision']}"),
                percent(measured["top1"]),
                Cell(sentences.paired(paired), paired and paired["difference"]),
                Cell(p50(row), _p50(row)),
                Cell(_speed(row, first), row["ratios"].get("latency_p50")),
                count(measured["parameters"]),
                count(measured["macs"]),
                size(measured["size_bytes"]),
            )
        )
    caption = (
        "What each row reaches; speed and differences of top-1 are against the first, in brackets the 95 % "
        "interval"
    )
    return Table(caption, headings, tuple(lines), frozenset({0, 1}))


def _taken(every: list[_Row]) -> Table:
    headings = ("row", "an epoch", "images/s", "training memory", "predicting memory", "notes")
    lines = []
    for row in every:
        notes = [f"slower than the row above: {', '.join(row['slower'])}"] if row["slower"] else []
        told = Cell("; ".join([*notes, *row["notes"]]))
        measured, training = row["measurement"], row["training"]
        if measured is None:
            lines.append((*_unmeasured(row, headings[:-1]), told))
            continue
        epoch = measured["train_seconds_per_epoch"]
        lines.append(
            (
                Cell(row["title"]),
                Cell(figures.duration(epoch), epoch),
                Cell(_amount(training["images_per_second"]), training["images_per_second"]),
                size(training["peak_bytes"]),
                size(figures.seen(measured["peak_rss_bytes"])),
                told,
            )
        )
    return Table("What each row takes", headings, tuple(lines), frozenset({0, len(headings) - 1}))


def _unmeasured(row: _Row, headings: Sequence[str]) -> tuple[Cell, ...]:
    return (Cell(row["title"]), *(Cell(figures.NOT_MEASURED) for _ in headings[1:]))


def _amount(value: float | None) -> str:
    return figures.NOT_MEASURED if value is None else figures.significant(value)


def _notes(ladder: Mapping[str, Any]) -> list[Block]:
    return [Note(line, "quiet") for line in method(ladder)]


def _accuracy(measured: list[_Row]) -> list[Block]:
    known = [
        row for row in measured if row["measurement"]["latency_ms"] and row["measurement"]["top1"] is not None
    ]
    if len(known) < 2:
        return []
    points = [
        Point(
            row["measurement"]["latency_ms"]["p50"],
            row["measurement"]["top1"],
            row["title"],
            "before" if at == 0 else "accepted",
            str(at),
        )
        for at, row in enumerate(known)
    ]
    lines = tuple(
        (
            Cell(row["title"]),
            Cell(p50(row), _p50(row)),
            Cell(figures.percent(row["measurement"]["top1"]), row["measurement"]["top1"]),
        )
        for row in known
    )
    return [
        accuracy.chart(
            "Top-1 against latency",
            "A point a row on val/, the dotted line joins them in their order; the solid one is the "
            "Pareto front.",
            points,
            Table("Latency and accuracy of each row", ("row", "latency p50", "top-1"), lines),
            upward="top-1",
            y_tick=lambda value: f"{value:g} %",
            key=(("before", "first row"), ("accepted", "later rows"), ("front", "Pareto front")),
            path=True,
        )
    ]


def _costs(measured: list[_Row]) -> list[Block]:
    latencies = [(row["title"], float(_p50(row) or 0.0), p50(row)) for row in measured if _p50(row)]
    found: list[Block] = []
    if len(latencies) > 1:
        found.append(bars("Latency", "latency p50", latencies, tick=milliseconds, first="row"))
    shown: tuple[tuple[str, str, str, Callable[[float | None], str]], ...] = (
        ("Training, an epoch", "time", "train_seconds_per_epoch", figures.duration),
        ("Memory while predicting", "bytes", "peak_rss_bytes", figures.size),
    )
    for title, unit, key, form in shown:
        known = [
            (row["title"], amount, form(amount)) for row in measured if (amount := row["measurement"][key])
        ]
        if len(known) > 1:
            found.append(bars(title, unit, known, tick=form, first="row"))
    return found


def _p50(row: _Row) -> float | None:
    latency = row["measurement"]["latency_ms"]
    return latency["p50"] if latency else None


def milliseconds(value: float) -> str:
    """A number of an axis, whose places are exact."""
    return f"{value:g} ms"


def bars(
    title: str,
    unit: str,
    known: list[tuple[str, float, str]],
    *,
    tick: Callable[[float], str],
    first: str,
) -> Chart:
    """A bar from zero for each name, value and words; `tick` writes the axis's numbers."""
    axis = scale.linear([value for _, value, _ in known], zero=True)
    drawn = [
        (name, "", words, rows.bar(axis, 0.0, value, "before" if at == 0 else "after"))
        for at, (name, value, words) in enumerate(known)
    ]
    lines = tuple((Cell(name), Cell(words, value)) for name, value, words in known)
    return Chart(
        title,
        f"Each from zero; the first {first} in grey.",
        rows.chart(drawn, axis, title=unit, tick=lambda value: tick(value) if value else "0"),
        Table(title, (first, unit), lines),
    )


def _repeat(ladder: Mapping[str, Any]) -> list[Block]:
    recipes = [Code(row["title"], row["recipe"]) for row in ladder["rows"] if row["recipe"]]
    return [
        *repeating.blocks(ladder),
        Facts("Pictures", repeating.facts(ladder["data"])),
        *recipes,
    ]
