"""A comparison drawn: what was timed, against the first of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from slimcv.quoting import one_line
from slimcv.report import as_json, check_format, figures
from slimcv.report.markdown import grid, repeating
from slimcv.report.terminal import draw, table

if TYPE_CHECKING:
    from rich.table import Table

_HEADINGS = (
    "target", "runs in", "threads", "batch", "streams", "p50", "p90", "p99", "spread", "calls", "images/s",
    "spread of images/s", "against the first", "load", "first call", "memory", "size", "top-1", "change",
    "95 % interval", "p",
)  # fmt: skip

_SETTING = ("threads", "batch", "streams")
_TIMES = ("p50", "images/s", "against the first")
_SPREADS = ("p90", "p99", "spread", "calls", "spread of images/s")
_COSTS = ("load", "first call", "memory", "size")
_ACCURACY = ("top-1", "change", "95 % interval", "p")
"""What stands on a terminal, in tables that fit it; a column without any figure is left out there."""

_NOTHING = f"{figures.NOT_MEASURED} "

ONE_CALL = 0.1
"""How sure a time is that was taken once, as a spread: two digits."""


def render_bench(found: Mapping[str, Any], format: str, *, colour: bool = False) -> str:
    """A `Comparison.as_json()` as text, JSON or Markdown. Raises SlimcvError on an unknown format."""
    check_format(format)
    if format == "json":
        return as_json(found)
    lines = [_line(row) for row in found["rows"]]
    if format == "markdown":
        return "\n\n".join([grid(_HEADINGS, lines, left=2), _note(found), *repeating(found)]) + "\n"

    from rich.text import Text

    rows = [dict(zip(_HEADINGS, map(one_line, line), strict=True)) for line in lines]
    for row, each in zip(rows, found["rows"], strict=True):
        if each.get("accuracy_problem"):
            row["top-1"] = figures.NOT_MEASURED
    setting = [heading for heading in _SETTING if len({row[heading] for row in rows}) > 1]
    tables = [
        _columns(found["rows"], rows, ("target", *setting, *known))
        for columns in (_TIMES, _SPREADS, _COSTS, _ACCURACY)
        if (known := [each for each in columns if any(row[each].strip(_NOTHING) for row in rows)])
    ]
    runs = dict.fromkeys(
        (row["target"], row["runs in"], one_line(each["problem"] or without_top1(each)))
        for row, each in zip(rows, found["rows"], strict=True)
    )
    tables.append(table(("target", "runs in", ""), list(runs), words={2}))
    told = _SETTING if found["mode"] == "throughput" else _SETTING[:2]
    alike = ", ".join(f"{key} {rows[0][key]}" for key in told if rows and key not in setting)
    return draw([*tables, Text(f"{alike}; {_note(found)}" if alike else _note(found))], colour=colour)


def _columns(
    found: Sequence[Mapping[str, Any]], rows: Sequence[Mapping[str, str]], headings: Sequence[str]
) -> Table:
    """Some columns of the comparison; a row that could not be run has no figures."""
    cells = [
        [
            row[heading]
            if each["problem"] is None or heading in ("target", *_SETTING)
            else figures.NOT_MEASURED
            for heading in headings
        ]
        for row, each in zip(rows, found, strict=True)
    ]
    return table(headings, cells, right=range(1, len(headings)))


def _line(row: Mapping[str, Any]) -> tuple[str, ...]:
    head = (row["name"], f"{row['runtime']} {row['precision'] or ''}".strip())
    if row["problem"] is not None:
        setting = (str(row["threads"]), str(row["batch"]), str(row["streams"]), row["problem"])
        return (*head, *setting, *[""] * (len(_HEADINGS) - len(head) - len(setting)))
    spread = row["spread"]
    load = row["load_seconds"]
    return (
        *head,
        str(row["threads"]),
        str(row["batch"]),
        str(row["streams"]),
        figures.milliseconds(row["p50_ms"], spread=spread),
        figures.milliseconds(row["p90_ms"], spread=spread),
        figures.milliseconds(row["p99_ms"], spread=spread),
        figures.spread(spread),
        str(row["samples"]),
        rate(row),
        figures.spread(row.get("throughput_spread")),
        against_the_first(row),
        figures.duration(load) if load is not None else "",
        figures.milliseconds(row["first_call_ms"], spread=ONE_CALL),
        figures.size(row["model_bytes"]),
        figures.size(row["size_bytes"]),
        without_top1(row) or figures.percent(row["top1"]),
        *_paired(row.get("paired")),
    )


def without_top1(row: Mapping[str, Any]) -> str:
    """Why there is no top-1 though there are pictures, "" where there is or nobody asked."""
    reason = row.get("accuracy_problem")
    return f"no top-1: {reason}" if reason else ""


def rate(row: Mapping[str, Any]) -> str:
    """Images a second with the digits that the spread of the rounds or of the calls leaves."""
    spread = row.get("throughput_spread") or row["spread"] or 0.0
    return figures.rounded(row["throughput_ips"], row["throughput_ips"] * spread)


def ratio_of(row: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """How many times as fast as the first: of images a second in throughput mode, else of latencies."""
    found: Mapping[str, Any] | None = row.get("throughput_ratio") or row["ratio"]
    return found


def against_the_first(row: Mapping[str, Any]) -> str:
    """The ratio with its interval."""
    ratio = ratio_of(row)
    return figures.between(ratio["value"], ratio["low"], ratio["high"]) if ratio else ""


def _paired(found: Mapping[str, Any] | None) -> tuple[str, str, str]:
    """Top-1 against the first target's on the same pictures: the difference, its bounds, McNemar's p."""
    if found is None:
        return ("", "", "")
    return (
        figures.points(found["difference"]),
        figures.points_between(found["low"], found["high"]),
        figures.probability(found["p_value"]),
    )


def _note(found: Mapping[str, Any]) -> str:
    samples = {row["samples"] for row in found["rows"] if row["problem"] is None}
    counted = f"{min(samples)}–{max(samples)}" if len(samples) > 1 else str(next(iter(samples), 0))
    how = "one prediction at a time" if found["mode"] == "latency" else "images/s of all streams together"
    note = (
        f"{found['mode']} mode: {how}; interleaved, {counted} calls each, "
        f"{figures.allocator(found.get('environment') or {})}; "
        "in brackets the 95 % interval; spread: half the interquartile range over the median"
    )
    if any(row["model_bytes"] is not None for row in found["rows"]):
        note += "; memory over the runtime's own"
    pictures = {row["paired"]["pictures"] for row in found["rows"] if row.get("paired")}
    if pictures:
        note += f"; top-1 against the first on the same {max(pictures):,} pictures, p by McNemar's test"
    return f"{note}."
