"""The page of several runs side by side."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from slimcv.report import comparison, figures, sentences
from slimcv.report.charts.plane import Point
from slimcv.report.html import accuracy, classes, costs, latency, repeating
from slimcv.report.html.parts import Block, Cell, Note, Page, Sections, Table, milliseconds
from slimcv.report.html.run import shipped
from slimcv.report.markdown import typed_command
from slimcv.report.reading import Finished


def page(found: Sequence[Finished]) -> Page:
    """What each run made of its original, in one table and on one axis."""
    names = titles(found)
    sections = Sections()
    sections.add("figures", "Figures", [*_warnings(found), _table(found, names), *_gates(found, names)])
    sections.add("accuracy", "Accuracy against latency", _accuracy(found, names))
    said = [(name, one.predictions) for name, one in zip(names, found, strict=True)]
    known = [(name, kept) for name, kept in said if kept is not None]
    sections.add("classes", "Accuracy class by class", classes.side_by_side(known))
    sections.add("size", "What the bytes are", _sizes(found, names))
    sections.add("latency", "How the latencies spread", _latencies(found, names))
    sections.add("steps", "What each run did", [_steps(found, names)])
    sections.add("repeat", "How to repeat it", _repeat(found, names))
    return Page(
        title=f"{len(found)} runs side by side",
        lead=", ".join(names),
        sections=tuple(sections.found),
        foot=f"{figures.NOT_MEASURED} stands for not measured.",
    )


def titles(found: Sequence[Finished]) -> list[str]:
    """A name for each run: its folder's, with as many of the folders above as it takes to tell them apart."""
    paths = [one.folder.resolve().parts for one in found]
    longest = max(map(len, paths))
    for length in range(1, longest + 1):
        names = ["/".join(path[-length:]) for path in paths]
        if len(set(names)) == len(names):
            return names
    return [f"{'/'.join(path)} ({number})" for number, path in enumerate(paths, start=1)]


def _warnings(found: Sequence[Finished]) -> list[Block]:
    """What makes the runs hard to compare."""
    notes = []
    asked: dict[str, Callable[[Mapping[str, Any]], object]] = {
        "on other machines": lambda one: one["environment"].get("cpu"),
        "with another number of threads": lambda one: one["optimized"]["threads"],
        "on other pictures": lambda one: (one["data"] or {}).get("fingerprint"),
        "of another original": lambda one: (one["model"].get("sha256"), one["original"]["parameters"]),
    }
    differing = [words for words, of in asked.items() if len({of(one.document) for one in found}) > 1]
    if differing:
        notes.append(Note(f"Not all of these runs are alike: they were made {', '.join(differing)}."))
    return [
        *notes,
        Note("Ratios are each run's own, against its original in the same measurement.", "quiet"),
    ]


def _table(found: Sequence[Finished], names: Sequence[str]) -> Table:
    headings = (
        "run", "recipe", "runs in", "latency p50", "speed", "top-1", "change", "size",
        "parameters", "MACs", "gate", "took",
    )  # fmt: skip
    lines = []
    for name, one in zip(names, found, strict=True):
        report = one.document
        after, ratios = report["optimized"], report["ratios"]
        p50 = (after["latency_ms"] or {}).get("p50")
        top1 = ratios["top1"]
        verdict = sentences.verdict(report["gate"])
        lines.append(
            (
                Cell(name),
                Cell(report["recipe"].get("name") or ""),
                Cell(f"{after['runtime']} {after['precision']}"),
                Cell(comparison.latency_of(after), p50),
                Cell(comparison.speed_of(report), ratios["latency_p50"]),
                Cell(figures.percent(after["top1"]), after["top1"]),
                Cell(figures.points(top1), top1),
                Cell(figures.size(after["size_bytes"]), after["size_bytes"]),
                Cell(figures.count(after["parameters"]), after["parameters"]),
                Cell(figures.count(after["macs"]), after["macs"]),
                Cell(verdict, mark={"met": "better", "missed": "worse"}.get(verdict, "")),
                Cell(figures.duration(report["seconds"]), report["seconds"]),
            )
        )
    caption = "What each run made of its original; in brackets the 95 % interval"
    return Table(caption, headings, tuple(lines), frozenset({0, 1, 2, 10}))


def _gates(found: Sequence[Finished], names: Sequence[str]) -> list[Block]:
    """What each run was asked for and whether it was met, by which figures."""
    told = []
    for name, one in zip(names, found, strict=True):
        lines = [sentences.gate(one.document), sentences.accuracy(one.document)]
        told.append(Note(f"{name}: {'; '.join(filter(None, lines))}."))
    return [*told]


def _sizes(found: Sequence[Finished], names: Sequence[str]) -> list[Block]:
    """The parts of each file that was shipped, where the runs kept them."""
    files = [(name, costs.file_of(one.document, "optimized")) for name, one in zip(names, found, strict=True)]
    known = [(name, file) for name, file in files if file is not None]
    return [costs.consist(known, "What the file that each run shipped consists of")] if known else []


def _repeat(found: Sequence[Finished], names: Sequence[str]) -> list[Block]:
    """The command of each run, then the machines."""
    runs = [(name, one.document) for name, one in zip(names, found, strict=True)]
    return [
        *(repeating.command(typed_command(report), f"Command of {name}") for name, report in runs),
        *(
            repeating.machine(report["environment"], f"Machine and versions of {name}")
            for name, report in runs
        ),
    ]


def _accuracy(found: Sequence[Finished], names: Sequence[str]) -> list[Block]:
    known = _known(found, names)
    points = [
        Point(latency["p50"], lost, name, "accepted", str(at), square=True)
        for at, (name, latency, lost) in enumerate(known, start=1)
    ]
    if not points:
        return []
    originals = [one.document["original"]["latency_ms"] for one in found]
    slowest = max(filter(None, originals), key=lambda latency: float(latency["p50"]), default=None)
    if slowest is not None:
        points.insert(0, Point(slowest["p50"], 0.0, "original", "before", "0", square=True))
        known.insert(0, ("original", slowest, 0.0))
    lines = tuple(
        (
            Cell(name),
            milliseconds(latency["p50"], spread=latency["spread"]),
            Cell(figures.points(lost), lost),
        )
        for name, latency, lost in known
    )
    headings = ("run", "latency p50", "top-1 against its original")
    return [
        accuracy.chart(
            "Top-1 against latency",
            "What each run shipped, by how far its top-1 is from its own original's on val/; the line is "
            "the Pareto "
            "front. The original stands where it was slowest.",
            points,
            Table("Latency and accuracy of each run", headings, lines),
            upward="top-1 against the original, points",
            y_tick=lambda value: f"{value:+g}".replace("-", "−") if value else "0",
            key=(("before", "original"), ("accepted", "shipped"), ("front", "Pareto front")),
        )
    ]


def _known(found: Sequence[Finished], names: Sequence[str]) -> list[tuple[str, Mapping[str, float], float]]:
    known = []
    for name, one in zip(names, found, strict=True):
        after, lost = one.document["optimized"], one.document["ratios"]["top1"]
        if after["latency_ms"] and lost is not None:
            known.append((name, after["latency_ms"], float(lost)))
    return known


def _latencies(found: Sequence[Finished], names: Sequence[str]) -> list[Block]:
    samples: dict[str, list[float]] = {}
    percentiles: dict[str, Any] = {}
    for name, one in zip(names, found, strict=True):
        report = one.document
        details = shipped(report)
        serve = ":".join(
            filter(None, (details.get("serve"), details.get("form") or details.get("quantizer")))
        )
        kept = (details.get("samples_ms") or {}).get(serve)
        if kept and len(kept) > 1:
            samples[name] = kept
        if report["optimized"]["latency_ms"]:
            percentiles[name] = report["optimized"]["latency_ms"]
    title = "Latency of what each run shipped"
    if len(samples) == len(found):
        return [latency.of_samples(samples, title)]
    return [latency.of_percentiles(percentiles, title)] if percentiles else []


def _steps(found: Sequence[Finished], names: Sequence[str]) -> Table:
    lines = []
    for name, one in zip(names, found, strict=True):
        for step in one.document["steps"]:
            outcome = step["outcome"]
            lines.append(
                (
                    Cell(f"{step['number']}. {step['name']}", step["number"]),
                    Cell(name),
                    Cell(outcome, mark=outcome if outcome in ("accepted", "rejected") else ""),
                    Cell(comparison.changes_of(step)),
                    Cell(sentences.top1(step["measurement"])),
                    Cell(figures.duration(step["seconds"]), step["seconds"]),
                    Cell(step["reason"]),
                )
            )
    headings = ("step", "run", "outcome", "gain", "top-1", "took", "why")
    return Table("Every decision of every run", headings, tuple(lines), frozenset({0, 1, 2, 6}))
