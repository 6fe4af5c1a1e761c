"""The page of a ladder: what each technique gives, row upon row."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from slimcv.report import figures
from slimcv.report.charts import rows, scale
from slimcv.report.charts.plane import Point
from slimcv.report.html import accuracy, repeating
from slimcv.report.html.parts import Block, Cell, Chart, Code, Facts, Note, Page, Sections, Table, Tile
from slimcv.report.ladder import method
from slimcv.report.reading import Finished

_Row = Mapping[str, Any]


def page(found: Finished) -> Page:
    """Rows, top-1 against latency, and what each row costs."""
    ladder = found.document
    measured = [row for row in ladder["rows"] if row["measurement"] is not None]
    sections = Sections()
    sections.add("rows", "Row upon row", [_table(ladder["rows"]), *_notes(ladder)])
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
    ratios, p50 = best["ratios"], best["measurement"]["latency_ms"]["p50"]
    tiles = [
        Tile(
            figures.times(ratios["latency_p50"], "faster", "slower"),
            f"with {best['title']}: {figures.milliseconds(p50)}",
        ),
        Tile(figures.times(ratios["parameters"], "less", "more"), "parameters"),
    ]
    if ratios["top1"] is not None:
        tiles.append(
            Tile(figures.points(ratios["top1"]), f"top-1 {figures.percent(best['measurement']['top1'])}")
        )
    return tuple(tiles)


def _table(every: list[_Row]) -> Table:
    headings = (
        "row", "runs in", "top-1", "latency p50", "speed", "parameters", "MACs", "size", "an epoch",
        "images/s", "training memory", "predicting memory", "notes",
    )  # fmt: skip
    lines = []
    for row in every:
        notes = [f"slower than the row above: {', '.join(row['slower'])}"] if row["slower"] else []
        told = Cell("; ".join([*notes, *row["notes"]]))
        measured, training = row["measurement"], row["training"]
        if measured is None:
            lines.append((Cell(row["title"]), *(Cell(figures.NOT_MEASURED) for _ in headings[2:]), told))
            continue
        latency, faster = measured["latency_ms"], row["ratios"].get("latency_p50")
        p50 = latency["p50"] if latency else None
        lines.append(
            (
                Cell(row["title"]),
                Cell(f"{measured['runtime']} {measured['precision']}"),
                Cell(figures.percent(measured["top1"]), measured["top1"]),
                Cell(figures.milliseconds(p50, spread=latency["spread"] if latency else None), p50),
                Cell(figures.NOT_MEASURED if faster is None else f"{figures.significant(faster)}×", faster),
                Cell(figures.count(measured["parameters"]), measured["parameters"]),
                Cell(figures.count(measured["macs"]), measured["macs"]),
                Cell(figures.size(measured["size_bytes"]), measured["size_bytes"]),
                Cell(
                    figures.duration(measured["train_seconds_per_epoch"]), measured["train_seconds_per_epoch"]
                ),
                Cell(_amount(training["images_per_second"]), training["images_per_second"]),
                Cell(figures.size(training["peak_bytes"]), training["peak_bytes"]),
                Cell(figures.size(measured["peak_rss_bytes"]), measured["peak_rss_bytes"]),
                told,
            )
        )
    return Table("Every row; speed is against the first", headings, tuple(lines), frozenset({0, 1, 12}))


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
            Cell(point.name),
            Cell(figures.milliseconds(point.x), point.x),
            Cell(figures.percent(point.y), point.y),
        )
        for point in points
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
    shown: tuple[tuple[str, str, Callable[[_Row], float | None], Callable[[float | None], str]], ...] = (
        ("Latency", "latency p50", _p50, figures.milliseconds),
        (
            "Training, an epoch",
            "time",
            lambda row: row["measurement"]["train_seconds_per_epoch"],
            figures.duration,
        ),
        ("Memory while predicting", "bytes", lambda row: row["measurement"]["peak_rss_bytes"], figures.size),
    )
    found: list[Block] = []
    for title, unit, value, form in shown:
        known = [(row["title"], amount, form(amount)) for row in measured if (amount := value(row))]
        if len(known) > 1:
            found.append(bars(title, unit, known, form=form, first="row"))
    return found


def _p50(row: _Row) -> float | None:
    latency = row["measurement"]["latency_ms"]
    return latency["p50"] if latency else None


def bars(title: str, unit: str, known: list[tuple[str, float, str]], *, form: Any, first: str) -> Chart:
    """A bar from zero for each name, value and words; `form` writes the axis's numbers."""
    axis = scale.linear([value for _, value, _ in known], zero=True)
    drawn = [
        (name, "", words, rows.bar(axis, 0.0, value, "before" if at == 0 else "after"))
        for at, (name, value, words) in enumerate(known)
    ]
    lines = tuple((Cell(name), Cell(words, value)) for name, value, words in known)
    return Chart(
        title,
        f"Each from zero; the first {first} in grey.",
        rows.chart(drawn, axis, title=unit, tick=lambda value: form(value) if value else "0"),
        Table(title, (first, unit), lines),
    )


def _repeat(ladder: Mapping[str, Any]) -> list[Block]:
    recipes = [Code(row["title"], row["recipe"]) for row in ladder["rows"] if row["recipe"]]
    return [
        *repeating.blocks(ladder),
        Facts("Pictures", repeating.facts(ladder["data"])),
        *recipes,
    ]
