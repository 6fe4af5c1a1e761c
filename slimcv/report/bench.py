"""A comparison drawn: what was timed, against the first of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from slimcv.report import as_json, check_format, figures
from slimcv.report.markdown import grid
from slimcv.report.quoting import one_line
from slimcv.report.text import draw, table

_HEADINGS = (
    "target", "runs in", "threads", "batch", "p50", "p90", "p99", "against the first", "images/s", "load",
    "first call", "memory", "size", "top-1",
)  # fmt: skip


ONE_CALL = 0.1
"""How sure a time is that was taken once, as a spread: two digits."""


def render_bench(found: Mapping[str, Any], format: str, *, colour: bool = False) -> str:
    """A `Comparison.as_json()` as text, JSON or Markdown. Raises SlimcvError on an unknown format."""
    check_format(format)
    if format == "json":
        return as_json(found)
    lines = [_line(row) for row in found["rows"]]
    if format == "markdown":
        return f"{grid(_HEADINGS, lines, left=2)}\n\n{_note(found)}\n"

    from rich.text import Text

    drawn = table(*_HEADINGS, right=frozenset(range(2, len(_HEADINGS))))
    for line in lines:
        drawn.add_row(*(Text(one_line(text)) for text in line))
    return draw([drawn, Text(_note(found))], colour=colour, width=max(160, 40 + _longest(lines)))


def _longest(lines: list[tuple[str, ...]]) -> int:
    return max((len(line[0]) for line in lines), default=0) + 110


def _line(row: Mapping[str, Any]) -> tuple[str, ...]:
    head = (row["name"], f"{row['runtime']} {row['precision'] or ''}".strip())
    if row["problem"] is not None:
        return (*head, str(row["threads"]), str(row["batch"]), row["problem"], *[""] * 9)
    ratio = row["ratio"]
    spread = row["spread"]
    against = figures.between(ratio["value"], ratio["low"], ratio["high"]) if ratio else ""
    load = row["load_seconds"]
    return (
        *head,
        str(row["threads"]),
        str(row["batch"]),
        figures.milliseconds(row["p50_ms"], spread=spread),
        figures.milliseconds(row["p90_ms"], spread=spread),
        figures.milliseconds(row["p99_ms"], spread=spread),
        against,
        figures.rounded(row["throughput_ips"], row["throughput_ips"] * (spread or 0.0)),
        figures.duration(load) if load is not None else "",
        figures.milliseconds(row["first_call_ms"], spread=ONE_CALL),
        figures.size(row["model_bytes"]),
        figures.size(row["size_bytes"]),
        figures.percent(row["top1"]),
    )


def _note(found: Mapping[str, Any]) -> str:
    samples = {row["samples"] for row in found["rows"] if row["problem"] is None}
    counted = f"{min(samples)}–{max(samples)}" if len(samples) > 1 else str(next(iter(samples), 0))
    streams = max((row["streams"] for row in found["rows"]), default=1)
    how = "one prediction at a time" if found["mode"] == "latency" else f"images/s of {streams} side by side"
    return (
        f"{found['mode']} mode: {how}; interleaved, {counted} calls each, allocator tuned; "
        "in brackets the 95 % interval; memory over the runtime's own."
    )
