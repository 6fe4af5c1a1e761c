"""Layer by layer before and after, and what the bytes of a file are."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any, Literal

from slimcv.report import figures, packing
from slimcv.report.charts import rows, scale
from slimcv.report.html.parts import Block, Cell, Chart, Note, Table, plain

SHOWN = 30
"""Of more layers only the most expensive are drawn; the table has all."""

PARTS = 5
"""So many parts of a file are told apart, the rest is one."""


@dataclass(frozen=True)
class _Pair:
    """A layer of the original and what became of it, each as (MACs, parameters, bytes)."""

    name: str
    before: tuple[int, int, int] | None
    after: tuple[int, int, int] | None


_COSTS: tuple[tuple[str, Callable[[float | None], str]], ...] = (
    ("MACs", figures.count), ("parameters", figures.count), ("bytes", figures.size),
)  # fmt: skip


def layers(report: Mapping[str, Any]) -> list[Block]:
    """MACs and bytes of each layer, and of what became of it, on one axis."""
    found = _layers(report)
    if found is None:
        return []
    pairs = _paired(*found)
    return [_layer_chart(pairs, at) for at in (0, 2) if any((pair.before or (0,) * 3)[at] for pair in pairs)]


def _layers(report: Mapping[str, Any]) -> tuple[list[Mapping[str, Any]], list[Mapping[str, Any]]] | None:
    details = report["steps"][-1]["details"] if report["steps"] else {}
    kept = details.get("layers")
    return (kept["original"], kept["optimized"]) if kept else None


def _paired(before: Sequence[Mapping[str, Any]], after: Sequence[Mapping[str, Any]]) -> list[_Pair]:
    """In the original's order; a layer taken apart keeps its name before a dot, and counts as one."""
    names = {layer["name"] for layer in before}

    def origin(name: str) -> str:
        parts = name.split(".")
        longer = (".".join(parts[:length]) for length in range(len(parts), 0, -1))
        return next((one for one in longer if one in names), name)

    old = {layer["name"]: _cost(layer) for layer in before}
    new: dict[str, tuple[int, int, int]] = {}
    for layer in after:
        name, cost = origin(layer["name"]), _cost(layer)
        known = new.get(name, (0, 0, 0))
        new[name] = (known[0] + cost[0], known[1] + cost[1], known[2] + cost[2])
    order = dict(zip([*old, *(name for name in new if name not in old)], count()))
    return [_Pair(name, old.get(name), new.get(name)) for name in order]


def _cost(layer: Mapping[str, Any]) -> tuple[int, int, int]:
    return layer["macs"], layer["parameters"], layer["bytes"]


def _layer_chart(pairs: Sequence[_Pair], at: int) -> Chart:
    name, form = _COSTS[at]

    def value(side: tuple[int, int, int] | None) -> int:
        return side[at] if side else 0

    dearest = sorted(pairs, key=lambda pair: -max(value(pair.before), value(pair.after)))[:SHOWN]
    drawn = [pair for pair in pairs if pair in dearest and (value(pair.before) or value(pair.after))]
    axis = scale.linear([value(side) for pair in drawn for side in (pair.before, pair.after)], zero=True)
    marks = [
        (
            pair.name,
            "" if pair.after else "gone" if pair.before else "new",
            f"{form(value(pair.before))} → {form(value(pair.after))}",
            rows.pair(axis, value(pair.before), value(pair.after)),
        )
        for pair in drawn
    ]
    what = "multiply-accumulates of one picture" if at == 0 else "the bytes of the weights"
    told = (
        f"Both on one axis, in the network's order: {what}. What a layer was taken apart into counts as "
        "that layer."
    )
    if len(drawn) < len(pairs):
        told += f" Drawn are {len(drawn)} of {len(pairs)} layers, the table has all."
    return Chart(
        f"{name[0].upper()}{name[1:]} layer by layer",
        told,
        rows.chart(marks, axis, title=name, tick=form),
        _layer_table(pairs, f"Every layer, before and after: {name} first", first=at),
        key=(("before", "original"), ("after", "optimised")),
    )


def _layer_table(pairs: Sequence[_Pair], caption: str, *, first: int) -> Table:
    order = sorted(range(len(_COSTS)), key=lambda at: at != first)
    headings = ["layer"]
    for at in order:
        headings += [f"{_COSTS[at][0]}, original", "optimised"]
    lines = []
    for pair in pairs:
        line = [Cell(pair.name)]
        for at in order:
            for side in (pair.before, pair.after):
                line.append(Cell(_COSTS[at][1](side[at] if side else None), side[at] if side else None))
        lines.append(tuple(line))
    return Table(caption, tuple(headings), tuple(lines))


def sizes(report: Mapping[str, Any]) -> list[Block]:
    """What the original's file and the served one consist of, and what both come to zipped and packed."""
    return [*_consist(report), *_packed(report)]


def _packed(report: Mapping[str, Any]) -> list[Block]:
    """Raw, zipped and packed bytes, or why the run did not pack."""
    lines = packing.lines(report)
    notes = [Note(f"{text[0].upper()}{text[1:]}.", "quiet") for text in packing.sentence(report)]
    if not lines:
        return [*notes]
    caption = "As they are, zipped and packed: the original against the optimised model"
    return [plain(caption, ("", "original", "optimised", "change"), lines), *notes]


def _consist(report: Mapping[str, Any]) -> list[Block]:
    files = [("original", file_of(report, "original")), ("optimised", file_of(report, "optimized"))]
    known = [(name, file) for name, file in files if file is not None]
    if len(known) < len(files):
        return []
    return [consist(known, "What the served file and the original's consist of")]


@dataclass(frozen=True)
class File:
    """A file's layers as the run kept them, and all its bytes."""

    layers: Sequence[Mapping[str, Any]]
    size_bytes: int


def file_of(report: Mapping[str, Any], side: Literal["original", "optimized"]) -> File | None:
    """What a run keeps of the file of a side; None where its layers or its size are not known."""
    found, total = _layers(report), report[side]["size_bytes"]
    return None if found is None or total is None else File(found[side == "optimized"], total)


def consist(files: Sequence[tuple[str, File]], title: str) -> Chart:
    """The largest parts of each named file, all on the scale of its own bytes."""
    marks, lines = [], []
    for name, file in files:
        parts, total = _parts(file.layers, file.size_bytes), file.size_bytes
        kinds = [f"part{at}" for at in range(1, len(parts))] + ["rest"]
        drawn = rows.stacked(
            [(kind, 100 * size / total) for kind, (_, size) in zip(kinds, parts, strict=True)]
        )
        told = ", ".join(f"{part}: {figures.share(size / total)}" for part, size in parts[:2])
        marks.append(rows.Row(name, figures.size(total), rows.plain_strip(drawn), told))
        lines += [
            (
                Cell(part),
                Cell(name),
                Cell(figures.size(size), size),
                Cell(figures.share(size / total), size / total),
            )
            for part, size in parts
        ]
    return Chart(
        title,
        "Each strip is a whole file: the weights of its largest layers in their order, then, in grey, "
        "everything else: smaller layers, the graph, scales and code.",
        rows.Rows(tuple(marks), rows.plain_strip(rows.stacked([])), ""),
        Table("Bytes by part", ("part", "file", "size", "share"), tuple(lines), frozenset({0, 1})),
    )


def _parts(kept: Sequence[Mapping[str, Any]], total: int) -> list[tuple[str, int]]:
    """The largest layers, in a file that holds them as the graph does, then the rest."""
    largest = sorted(kept, key=lambda layer: -layer["bytes"])[:PARTS]
    found, left = [], total
    for layer in largest:
        size = min(layer["bytes"], left)
        if size:
            found.append((layer["name"], size))
            left -= size
    return [*found, ("everything else", left)]
