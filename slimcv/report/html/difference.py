"""The page of two profiles layer by layer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from slimcv.report import figures
from slimcv.report.difference import HEADINGS, profiled, row, whole
from slimcv.report.html import repeating, times
from slimcv.report.html.parts import Cell, Note, Page, Sections, Table, Tile, plain
from slimcv.report.reading import Finished

_KEYS = ("ms", "macs", "parameters")


def page(found: Finished) -> Page:
    """What each layer takes and what stands in its place, the whole of both, and what was profiled."""
    difference = found.document
    before, after = difference["totals"]
    sections = Sections()
    told = (
        "One picture at a time. What a layer was taken apart into counts as that layer; operators without "
        "weights are gathered by kind, in brackets."
    )
    pairs = [
        (pair["name"], _of(pair["before"], "ms"), _of(pair["after"], "ms")) for pair in difference["layers"]
    ]
    layers = times.paired(pairs, _table(difference), told=told, names=("first", "second"))
    sections.add("layers", "Layer by layer", layers)
    values = [
        (name, *(form(side[key]) for side in (before, after)))
        for name, key, form in (
            ("time in the layers", "layers_ms", figures.milliseconds),
            ("a whole call", "call_ms", figures.milliseconds),
            ("MACs", "macs", figures.count),
            ("parameters", "parameters", figures.count),
        )
    ]
    sections.add("totals", "Totals", [plain("Both networks", ("", "first", "second"), values)])
    sections.add("profiled", "What was profiled", [Note(f"{line}.") for line in profiled(difference)])
    sections.add("repeat", "How to repeat it", repeating.blocks(difference))
    return Page(
        title="Two networks layer by layer",
        lead=" → ".join(f"{one['name']} ({one['input']})" for one in difference["models"]),
        tiles=(
            Tile(
                figures.times(before["call_ms"] / after["call_ms"], "faster", "slower", digits=2),
                f"a whole call, {figures.milliseconds(before['call_ms'])} → "
                f"{figures.milliseconds(after['call_ms'])}",
            ),
            *(
                Tile(
                    figures.reduction(before[key], after[key]),
                    f"{name}, {figures.count(before[key])} → {figures.count(after[key])}",
                )
                for name, key in (("MACs", "macs"), ("parameters", "parameters"))
            ),
        ),
        sections=tuple(sections.found),
        foot=f"{figures.NOT_MEASURED} stands for a layer that is not there.",
    )


def _table(difference: Mapping[str, Any]) -> Table:
    """Every layer; of the columns for both sides the first says which side it is."""
    headings = [
        f"{heading}, {side}" if heading in ("ms", "MACs", "parameters") else heading or "change"
        for heading, side in zip(
            HEADINGS, ("", "", "first", "second", "", *("first", "second") * 2), strict=True
        )
    ]
    lines = [tuple(map(Cell, row(pair), (None, None, *_sorted(pair)))) for pair in difference["layers"]]
    lines.append(tuple(map(Cell, whole(difference))))
    return Table("Every layer of both", tuple(headings), tuple(lines), frozenset({0, 1}))


def _sorted(pair: Mapping[str, Any]) -> list[float | None]:
    """The numbers that the columns after name and kind are sorted by."""
    sides = (pair["before"], pair["after"])
    found = [[_of(side, key) for side in sides] for key in _KEYS]
    first, second = found[0]
    return [first, second, first / second if first and second else None, *found[1], *found[2]]


def _of(cost: Mapping[str, Any] | None, key: str) -> float | None:
    return None if cost is None else float(cost[key])
