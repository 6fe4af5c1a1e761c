"""What each step gave and cost, accepted and rejected."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from markupsafe import Markup

from slimcv.report import comparison, figures, sentences
from slimcv.report.charts import rows, scale
from slimcv.report.html.parts import Block, Cell, Chart, Table

_GIVEN = ("original", "ship")


def blocks(report: Mapping[str, Any]) -> list[Block]:
    """The waterfall of latencies and the table of all decisions."""
    steps = report["steps"]
    timed = [step for step in steps if _latencies(step) is not None and step["name"] not in _GIVEN]
    table = _table(steps)
    if not timed:
        return [table] if steps else []
    values = [value for step in timed for value in _latencies(step) or ()]
    axis = scale.logarithmic(values)
    drawn = []
    for step in steps:
        if step["name"] in _GIVEN:
            continue
        took = ", ".join(
            filter(None, (step["outcome"], _where(step), f"took {figures.duration(step['seconds'])}"))
        )
        latencies = _latencies(step)
        if latencies is None:
            drawn.append((_name(step), took, "", Markup("")))
            continue
        kind = "accepted" if step["outcome"] == "accepted" else "rejected"
        drawn.append((_name(step), took, _figure(step), rows.change(axis, *latencies, kind)))
    return [
        Chart(
            "Latency before and after each step",
            "Each bar goes from the latency of the network a step was applied to, to that of the one it "
            "made, where the dot is; to the left is faster. On a logarithmic axis; the runtime stands "
            "with each bar, two where a step's file is compared with the network in another one. At the "
            "end the factor, and the change of top-1 on the tuning split.",
            rows.chart(drawn, axis, title="latency p50, ms", tick=_tick),
            table,
            key=(("accepted", "accepted"), ("rejected", "rejected")),
        )
    ]


def _name(step: Mapping[str, Any]) -> str:
    return f"{step['number']}. {step['name']}"


def _where(step: Mapping[str, Any]) -> str:
    """The runtime that a step was timed in, both where they differ: "in openvino", "in eager → openvino"."""
    timed = [step[key]["runtime"] for key in ("before", "measurement") if step[key]]
    return f"in {' → '.join(dict.fromkeys(timed))}" if timed else ""


def _latencies(step: Mapping[str, Any]) -> tuple[float, float] | None:
    before, after = step["before"], step["measurement"]
    if not before or not after or not before["latency_ms"] or not after["latency_ms"]:
        return None
    return before["latency_ms"]["p50"], after["latency_ms"]["p50"]


def _figure(step: Mapping[str, Any]) -> str:
    change = _accuracy(step)
    return comparison.changes_of(step) + (f", {figures.points(change)}" if change is not None else "")


def _accuracy(step: Mapping[str, Any]) -> float | None:
    """Points of top-1 that a step gave or took, of agreement with the original where nothing has labels."""
    before, after = step["before"], step["measurement"]
    if not before or not after:
        return None
    for key in ("top1", "agreement"):
        if before[key] is not None and after[key] is not None:
            return float(after[key] - before[key])
    return None


def _tick(value: float) -> str:
    return f"{value:g}"


def _table(steps: list[Mapping[str, Any]]) -> Table:
    headings = (
        "step", "outcome", "runtime", "latency p50", "gain", "top-1", "change", "MACs", "parameters", "size",
        "took", "why",
    )  # fmt: skip
    lines = []
    for step in steps:
        after, change, latencies = step["measurement"] or {}, _accuracy(step), _latencies(step)
        p50 = (after.get("latency_ms") or {}).get("p50")
        gain = latencies[0] / latencies[1] if latencies else None
        reasons = "; ".join(filter(None, (step["reason"], sentences.accuracy_note(step))))
        outcome = step["outcome"]
        lines.append(
            (
                Cell(_name(step), step["number"]),
                Cell(outcome, mark=outcome if outcome in ("accepted", "rejected") else ""),
                Cell(_where(step).removeprefix("in ") or figures.NOT_MEASURED),
                Cell(comparison.latency_of(after), p50),
                Cell(comparison.changes_of(step), gain),
                Cell(sentences.top1(after), after.get("top1")),
                Cell(figures.points(change), change),
                Cell(figures.count(after.get("macs")), after.get("macs")),
                Cell(figures.count(after.get("parameters")), after.get("parameters")),
                Cell(figures.size(after.get("size_bytes")), after.get("size_bytes")),
                Cell(figures.duration(step["seconds"]), step["seconds"]),
                Cell(reasons),
            )
        )
    caption = (
        "Every decision in its order; top-1 is that of the tuning split, in the rows original and ship that "
        "of the pictures they were judged on; in brackets the 95 % interval of its difference from the "
        "original's"
    )
    return Table(caption, headings, tuple(lines), frozenset({0, 1, 2, 11}))
