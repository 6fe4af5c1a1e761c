"""The page of one optimisation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from slimcv.report import comparison, figures, rungs, sentences
from slimcv.report.html import accuracy, classes, costs, foretold, latency, repeating, times, training, way
from slimcv.report.html.parts import Block, Cell, Code, Facts, Note, Page, Sections, Table, Tile, plain
from slimcv.report.markdown import typed_command
from slimcv.report.reading import Finished
from slimcv.report.text import difference


def page(found: Finished) -> Page:
    """Everything that the run knows, what people quote first."""
    report = found.document
    sections = Sections()
    sections.add("before-after", "Before and after", _before_after(report))
    sections.add("steps", "What each step gave and cost", way.blocks(report))
    sections.add("int8", "INT8, rung by rung", _rungs(report))
    sections.add("foretold", "What was foretold", foretold.of_run(report))
    sections.add("accuracy", "Accuracy against latency", accuracy.blocks(report))
    sections.add("classes", "Accuracy class by class", classes.blocks(found.predictions))
    sections.add("layers", "Where the work is", [*times.layers(report), *costs.layers(report)])
    sections.add("roofline", "Against this machine's limits", times.limits(report))
    sections.add("latency", "Runtimes, and how the latencies spread", latency.blocks(report))
    sections.add("size", "What the bytes are", costs.sizes(report))
    sections.add("training", "Training", training.blocks(report))
    sections.add("repeat", "How to repeat it", repeat(report))
    return Page(
        title=found.name,
        lead=lead(report),
        verdict=verdict(report),
        tiles=tiles(report),
        sections=tuple(sections.found),
        foot=f"{figures.NOT_MEASURED} stands for not measured.",
    )


def lead(report: Mapping[str, Any]) -> str:
    """What was done, on what, in one sentence."""
    after, recipe = report["optimized"], report["recipe"].get("name")
    by = f" by the recipe {recipe}" if recipe else ""
    on = f" on {report['environment']['cpu']}" if report["environment"].get("cpu") else ""
    threads = f"{after['threads']} thread{'s' if after['threads'] != 1 else ''}"
    return (
        f"Optimised{by} in {figures.duration(report['seconds'])}; it now runs in {after['runtime']}, "
        f"{after['precision']}. Measured at batch {after['batch']} with {threads}{on}."
    )


def verdict(report: Mapping[str, Any]) -> tuple[str, str]:
    """Whether the gate was met."""
    text = sentences.gate(report)
    kind = {True: "met", False: "missed", None: ""}[report["gate"]["met"]]
    return kind, text[0].upper() + text[1:]


def tiles(report: Mapping[str, Any]) -> tuple[Tile, ...]:
    """The ratios that people quote, each with how sure it is."""
    before, after, ratios = report["original"], report["optimized"], report["ratios"]
    found = []
    if ratios["latency_p50"] is not None:
        spread = max(before["latency_ms"]["spread"], after["latency_ms"]["spread"])
        speed, sure = _speed(report, "latency_p50", before)
        found.append(
            Tile(
                speed,
                f"{comparison.latency_of(before)} → {comparison.latency_of(after)}",
                sure or f"spread of the samples ±{figures.share(spread)}",
            )
        )
    if ratios["beyond_runtime"] is not None:
        best = report["best_unmodified"]
        speed, sure = _speed(report, "beyond_runtime", best)
        joined = "of" if speed == comparison.WITHIN else "than"
        found.append(Tile(speed, f"{joined} the unmodified network in {best['runtime']}", sure))
    if ratios["top1"] is not None:
        pictures = (report["data"] or {}).get("val")
        found.append(
            Tile(
                figures.points(ratios["top1"]),
                f"top-1 {figures.percent(before['top1'])} → {figures.percent(after['top1'])}",
                _sure(after.get("paired"), f"on {pictures:,} pictures of val/" if pictures else ""),
            )
        )
    elif after["agreement"] is not None:
        label = "same answer as the original"
        pictures = figures.asked(after.get("synthetic_pictures")) or "pictures without labels"
        found.append(Tile(figures.percent(after["agreement"]), label, f"on {pictures}"))
    for label, key, form, less, more in (
        ("file size", "size_bytes", figures.size, "smaller", "larger"),
        ("parameters", "parameters", figures.count, "fewer", "more"),
    ):
        if ratios[key] is not None:
            change = f"{form(before[key])} → {form(after[key])}"
            found.append(Tile(figures.times(ratios[key], less, more), label, change))
    return tuple(found)


def _sure(paired: Mapping[str, Any] | None, pictures: str) -> str:
    """How sure a difference of top-1 is, and on what it was found."""
    if paired is None:
        return pictures
    bounds = figures.points_between(paired["low"], paired["high"])
    told = f"95 % interval {bounds}, {figures.p_value(paired['p_value'])}"
    return f"{told}, {pictures}" if pictures else told


def _speed(report: Mapping[str, Any], key: str, before: Mapping[str, Any]) -> tuple[str, str]:
    """A ratio of latencies as the tables have it, and its 95 % interval where the run kept it."""
    speed, _, bounds = comparison.speed(report, key, before).partition(" (")
    between = comparison.interval(report, key)
    if between is None:
        return speed, ""
    if not bounds:
        bounds = figures.between(report["ratios"][key], *between).partition(" (")[2]
    return speed, f"95 % interval {bounds.rstrip(')').replace('–', ' to ')}×"


def shipped(report: Mapping[str, Any]) -> Mapping[str, Any]:
    """The details of the record that says what was shipped."""
    last: Mapping[str, Any] = report["steps"][-1]["details"] if report["steps"] else {}
    return last


def _before_after(report: Mapping[str, Any]) -> list[Block]:
    rows = tuple(
        (Cell(row.label), Cell(row.original), Cell(row.optimized), Cell(row.change))
        for row in comparison.rows(report)
    )
    table = Table(
        "The original network in eager PyTorch and what was shipped",
        ("", "original", "optimised", "change"),
        rows,
        sortable=False,
    )
    method = sentences.method(report)
    told = sentences.accuracy(report)
    lines = [f"{line[0].upper()}{line[1:]}." for line in (told, method) if line]
    blocks: list[Block] = [table, *(Note(line, "quiet") for line in lines)]
    alone = plain(
        "What a runtime or an allocator alone gives the unmodified network",
        ("", "latency p50", "against the base"),
        comparison.unmodified(report),
    )
    sentence = comparison.beyond_runtime(report)
    return [*blocks, alone, *([Note(sentence)] if sentence else [])]


def _rungs(report: Mapping[str, Any]) -> list[Block]:
    blocks: list[Block] = []
    for step in rungs.quantized(report):
        blocks.append(Note(f"{rungs.title(step)}: {rungs.sentence(step)}.", "quiet"))
        rows = tuple(tuple(map(Cell, row)) for row in rungs.rows(step))
        caption = f"The rungs of step {step['number']} in the order in which they were tried"
        blocks.append(Table(caption, rungs.HEADINGS, rows, frozenset({0, 1, 6}), sortable=False))
    return blocks


def repeat(report: Mapping[str, Any]) -> list[Block]:
    """The command, the recipe, the machine, the data, and the files that came out."""
    blocks: list[Block] = [repeating.command(typed_command(report))]
    if report["recipe"].get("text"):
        blocks.append(Code(f"Recipe {report['recipe'].get('name') or ''}".strip(), report["recipe"]["text"]))
    if report["artifacts"]:
        blocks.append(_files(report))
    model = {key: value for key, value in report["model"].items() if key != "name"}
    blocks.append(repeating.machine(report["environment"]))
    blocks.append(Facts("Model", repeating.facts(model)))
    if report["data"]:
        blocks.append(Facts("Pictures", repeating.facts(report["data"])))
    return blocks


def _files(report: Mapping[str, Any]) -> Table:
    rows = tuple(
        (
            Cell(one["path"]),
            Cell(f"{one['runtime']} {one['precision']}"),
            Cell(figures.size(one["bytes"]), one["bytes"]),
            Cell(figures.milliseconds(one["latency_ms"], spread=one.get("spread")), one["latency_ms"]),
            Cell(difference(one["max_abs_diff"]), one["max_abs_diff"]),
            Cell(one["sha256"][:16] + "…"),
        )
        for one in report["artifacts"]
    )
    headings = ("file", "runs in", "size", "latency p50", "max. difference", "SHA-256")
    return Table("The files that came out", headings, rows, frozenset({0, 1, 5}))
