"""Milliseconds of each layer before and after on one axis, and both networks under the roofline."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from slimcv.report import figures
from slimcv.report.charts import rows, scale
from slimcv.report.html import roofline
from slimcv.report.html.parts import Block, Cell, Chart, Note, Table

SHOWN = 30
"""Of more layers only the slowest are drawn; the table has all."""


def of(report: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """What the run kept of the time of each layer, None where it kept nothing."""
    details = report["steps"][-1]["details"] if report["steps"] else {}
    found: Mapping[str, Any] | None = details.get("layer_times")
    return found


def layers(report: Mapping[str, Any]) -> list[Block]:
    """What each layer takes and what stands in its place takes."""
    found = of(report)
    if found is None:
        return []
    if found["problem"] is not None:
        return [Note(f"Layers were not timed: {found['problem']}.", "quiet")]
    sides = (found["original"], found["optimized"])
    calls = " and ".join(figures.milliseconds(side["call_ms"]) for side in sides)
    told = (
        f"Both networks in {found['runtime']}, the original in {sides[0]['precision']} and the optimised "
        f"one in {sides[1]['precision']}, one picture at a time; whole calls take {calls}. What a layer was "
        "taken apart into counts as that layer; operators without weights, and what a runtime does for "
        "itself, are gathered in brackets."
    )
    lines = tuple(
        (
            Cell(str(pair["name"])),
            *(Cell(figures.milliseconds(pair[key]), pair[key]) for key in ("before_ms", "after_ms")),
        )
        for pair in found["pairs"]
    )
    table = Table("The time of every layer, before and after", ("layer", "original", "optimised"), lines)
    pairs = [(pair["name"], pair["before_ms"], pair["after_ms"]) for pair in found["pairs"]]
    return paired(pairs, table, told=told, names=("original", "optimised"))


def paired(
    pairs: Sequence[tuple[str, float | None, float | None]],
    table: Table,
    *,
    told: str,
    names: tuple[str, str],
) -> list[Block]:
    """Two bars a layer, from (name, milliseconds before, after) with None where there is no such layer.

    `table` says it in figures, `names` are those of the two sides; no chart where there is nothing to draw.
    """
    dearest = sorted(range(len(pairs)), key=lambda at: -max(pairs[at][1] or 0.0, pairs[at][2] or 0.0))
    drawn = [pairs[at] for at in sorted(dearest[:SHOWN])]
    if not drawn:
        return []
    axis = scale.linear([ms or 0.0 for _, *sides in drawn for ms in sides], zero=True)
    marks = [
        (
            str(name),
            "gone" if after is None else "new" if before is None else "",
            f"{figures.milliseconds(before)} → {figures.milliseconds(after)}",
            rows.pair(axis, before, after),
        )
        for name, before, after in drawn
    ]
    if len(drawn) < len(pairs):
        told += f" Drawn are {len(drawn)} of {len(pairs)} rows, the table has all."
    return [
        Chart(
            "Milliseconds layer by layer",
            told,
            rows.chart(marks, axis, title="ms", tick=lambda value: f"{value:g}"),
            table,
            key=(("before", names[0]), ("after", names[1])),
        )
    ]


def limits(report: Mapping[str, Any]) -> list[Block]:
    """Both networks under this machine's roofline."""
    found = of(report)
    if found is None or found["problem"] is not None:
        return []
    networks = [
        roofline.Network(name, kind, found[key]["layers"])
        for name, kind, key in (("original", "before", "original"), ("optimised", "after", "optimized"))
    ]
    return roofline.blocks(found["limits"], networks, where=f"both networks in {found['runtime']}")
