"""The page of several runs side by side."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from slimcv.report import comparison, figures, sentences
from slimcv.report.charts.plane import Point
from slimcv.report.html import accuracy, latency, repeating
from slimcv.report.html.parts import Block, Cell, Note, Page, Sections, Table
from slimcv.report.html.run import shipped
from slimcv.report.reading import Finished


def page(found: Sequence[Finished]) -> Page:
    """What each run made of its original, in one table and on one axis."""
    names = titles(found)
    sections = Sections()
    sections.add("figures", "Figures", [*_warnings(found), _table(found, names)])
    sections.add("accuracy", "Accuracy against latency", _accuracy(found, names))
    sections.add("latency", "How the latencies spread", _latencies(found, names))
    sections.add("steps", "What each run did", [_steps(found, names)])
    environments = [
        repeating.machine(one.document["environment"], name) for name, one in zip(names, found, strict=True)
    ]
    sections.add("machines", "Measured on", environments)
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


def _accuracy(found: Sequence[Finished], names: Sequence[str]) -> list[Block]:
    points = [
        Point(p50, lost, name, "accepted", str(at), square=True)
        for at, (name, p50, lost) in enumerate(_known(found, names), start=1)
    ]
    originals = [one.document["original"]["latency_ms"] for one in found]
    if not points:
        return []
    known = [latency["p50"] for latency in originals if latency]
    if known:
        points.insert(0, Point(max(known), 0.0, "original", "before", "0", square=True))
    lines = tuple(
        (
            Cell(point.name),
            Cell(figures.milliseconds(point.x), point.x),
            Cell(figures.points(point.y), point.y),
        )
        for point in points
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


def _known(found: Sequence[Finished], names: Sequence[str]) -> list[tuple[str, float, float]]:
    known = []
    for name, one in zip(names, found, strict=True):
        after, lost = one.document["optimized"], one.document["ratios"]["top1"]
        if after["latency_ms"] and lost is not None:
            known.append((name, float(after["latency_ms"]["p50"]), float(lost)))
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
