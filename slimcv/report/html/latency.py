"""How the latencies of one measurement spread."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median, quantiles
from typing import Any

from slimcv.report import comparison, figures
from slimcv.report.charts import rows, scale
from slimcv.report.html.parts import Block, Cell, Chart, Table, milliseconds


def blocks(report: Mapping[str, Any]) -> list[Block]:
    """Every way to run the network, and how its calls spread."""
    return [*ways(report), *spread(report)]


def ways(report: Mapping[str, Any]) -> list[Block]:
    """The table of the bake-off, empty where there was none."""
    lines = [
        (Cell(way.name), Cell(way.precision), Cell(way.latency, way.p50_ms), Cell(way.outcome))
        for way in comparison.bake_off(report)
    ]
    headings = ("runtime", "precision", "latency p50", "what became of it")
    table = Table("Every way to run the optimised network", headings, tuple(lines), frozenset({0, 1, 3}))
    return [table] if lines else []


def spread(report: Mapping[str, Any]) -> list[Block]:
    """Every call of the final measurement, where the run kept them, else the percentiles."""
    details = report["steps"][-1]["details"] if report["steps"] else {}
    samples = {name: values for name, values in (details.get("samples_ms") or {}).items() if len(values) > 1}
    if samples:
        return [of_samples(samples, "Every timed call of the final measurement")]
    named = {
        "original, default allocator": report["original_default_allocator"],
        "original": report["original"],
        "best unmodified": report["best_unmodified"],
        "optimised": report["optimized"],
    }
    known = {name: one["latency_ms"] for name, one in named.items() if one and one["latency_ms"]}
    return [of_percentiles(known, "The final measurement")] if known else []


def of_samples(samples: Mapping[str, Sequence[float]], title: str) -> Chart:
    """Each contender's calls as dots around its own median, the middle half as a box."""
    medians = {name: median(values) for name, values in samples.items()}
    relative = {name: [value / medians[name] for value in values] for name, values in samples.items()}
    axis = scale.linear([value for values in relative.values() for value in values])
    drawn, lines = [], []
    for name, values in samples.items():
        quarters = quantiles(relative[name], n=4, method="inclusive")
        marks = rows.spread(axis, relative[name], quartiles=(quarters[0], quarters[1], quarters[2]))
        spread = (quarters[2] - quarters[0]) / 2
        words = figures.milliseconds(medians[name], spread=spread)
        drawn.append((name, f"{len(values)} calls", words, marks))
        found = (
            min(values),
            quarters[0] * medians[name],
            medians[name],
            quarters[2] * medians[name],
            max(values),
        )
        lines.append(
            (
                Cell(name),
                Cell(str(len(values)), len(values)),
                *(Cell(figures.milliseconds(value, spread=spread), value) for value in found),
            )
        )
    headings = ("contender", "calls", "least", "lower quarter", "median", "upper quarter", "most")
    told = (
        "Each strip is on an axis of its own median, which stands at the end: a dot is a call, from the "
        "first at the top to the last at the bottom; the box holds the middle half, the line is the median."
    )
    return Chart(
        title,
        told,
        rows.chart(drawn, axis, title="of its median", tick=lambda value: f"{value:g}×"),
        Table("Latencies of each contender", headings, tuple(lines)),
    )


def of_percentiles(known: Mapping[str, Mapping[str, Any]], title: str) -> Chart:
    """From the median to the 90th percentile of each contender; samples were not kept."""
    axis = scale.logarithmic(
        [one[key] for one in known.values() for key in ("p50", "p90", "p99") if one[key]]
    )
    drawn, lines = [], []
    for name, one in known.items():
        figure = f"{figures.milliseconds(one['p50'], spread=one['spread'])}"
        drawn.append((name, f"{one['n']} calls", figure, rows.bar(axis, one["p50"], one["p90"], "after")))
        lines.append(
            (
                Cell(name),
                Cell(str(one["n"]), one["n"]),
                *(milliseconds(one[key], spread=one["spread"]) for key in ("p50", "p90", "p99")),
                Cell(f"±{figures.share(one['spread'])}", one["spread"]),
            )
        )
    return Chart(
        title,
        "Each bar goes from the median to the 90th percentile: the longer, the less even. Logarithmic axis.",
        rows.chart(drawn, axis, title="latency, ms", tick=lambda value: f"{value:g}"),
        Table(
            "Percentiles of each contender",
            ("contender", "calls", "p50", "p90", "p99", "spread"),
            tuple(lines),
        ),
    )
