"""A ladder drawn: its rows with their ratios to the first one, as strict JSON, on a terminal, in Markdown."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from slimcv.quoting import cell, fenced, one_line
from slimcv.report import figures
from slimcv.report.chart import Point, accuracy_against_latency
from slimcv.report.document import as_plain, ratios
from slimcv.report.markdown import facts, grid, repeating
from slimcv.report.terminal import draw, table
from slimcv.results import SCHEMA_VERSION, Latency, Record

if TYPE_CHECKING:
    from rich.console import RenderableType

SLOWER = "▼"
"""Marks a time that is longer than that of the row above."""

_Row = Mapping[str, Any]


def build(
    records: Sequence[Record],
    *,
    model: Mapping[str, Any],
    data: Mapping[str, Any],
    epochs: int,
    seed: int,
    train_threads: int,
    environment: Mapping[str, Any],
    command: Sequence[str],
    seconds: float,
) -> dict[str, Any]:
    """The ladder as strict JSON data, from the rows' records (see slimcv.ladder.measured_rows).

    `seconds` is the wall time of all of it.

    Every row has its `measurement`, `training` (seconds are in the measurement), `ratios` to the first row
    (above 1 is better, `top1` in points) and `slower`, which says in words what takes longer than in the row
    above, however little; `slower_beyond_spread` is about its latency. A skipped row has only notes.
    """
    rows = [_row(record, first=records[0]) for record in records]
    measured = [row for row in rows if row["measurement"] is not None]
    for above, row in pairwise(measured):
        row["slower"] = _slower(above, row)
    plain: dict[str, Any] = as_plain(
        {
            "schema_version": SCHEMA_VERSION,
            "model": model,
            "data": data,
            "epochs": epochs,
            "seed": seed,
            "threads": records[0].measurement.threads if records[0].measurement else None,
            "train_threads": train_threads,
            "rows": rows,
            "environment": environment,
            "command": command,
            "seconds": seconds,
        }
    )
    return plain


def _row(record: Record, *, first: Record) -> dict[str, Any]:
    measured, base, training = record.measurement, first.measurement, record.details["training"]
    against: dict[str, float | None] = {}
    if measured is not None and base is not None:
        known = ratios(base, measured)
        against = {key: known[key] for key in ("parameters", "macs", "size_bytes", "top1", "latency_p50")}
        against |= {
            "parameters_with_buffers": (base.parameters + base.buffers)
            / ((measured.parameters + measured.buffers) or 1),
            "train_seconds_per_epoch": known["train_seconds_per_epoch"],
            "predict_peak_bytes": known["peak_rss_bytes"],
            "train_images_per_second": _quotient(
                training["images_per_second"], first.details["training"]["images_per_second"]
            ),
            **_bounds(record.details.get("latency_ratio")),
            "train_peak_bytes": _quotient(first.details["training"]["peak_bytes"], training["peak_bytes"]),
        }
    return {
        "name": record.step,
        "title": record.details["title"],
        "outcome": record.outcome,
        "notes": list(record.details["notes"]),
        "slower": [],
        "slower_beyond_spread": record.details.get("slower_beyond_spread", False),
        "measurement": as_plain(measured),
        "training": training,
        "ratios": against,
        "recipe": record.details["recipe"],
    }


def _bounds(ratio: Mapping[str, float] | None) -> dict[str, float]:
    """The 95 % interval of the latency's ratio to the first row."""
    return {} if ratio is None else {f"latency_p50_{bound}": ratio[bound] for bound in ("low", "high")}


def _quotient(above: float | None, below: float | None) -> float | None:
    return above / below if above and below else None


def _slower(above: _Row, row: _Row) -> list[str]:
    """What takes longer than in the row above, however little."""
    found = []
    before, after = _latency(above), _latency(row)
    if before is not None and after is not None and after.p50 > before.p50:
        inside = "" if row["slower_beyond_spread"] else ", inside the spread"
        found.append(f"latency {figures.significant(after.p50 / before.p50)}×{inside}")
    pace = [side["measurement"]["train_seconds_per_epoch"] for side in (above, row)]
    if None not in pace and pace[1] > pace[0]:
        found.append(f"training {figures.significant(pace[1] / pace[0])}×")
    return found


def _latency(row: _Row) -> Latency | None:
    values = row["measurement"]["latency_ms"]
    return None if values is None else Latency(**values)


def render_ladder(ladder: Mapping[str, Any], format: str, *, colour: bool = False) -> str:
    """A ladder made by `build` as text, JSON or Markdown. Raises SlimcvError on an unknown format."""
    from slimcv.report import as_json, check_format

    check_format(format)
    if format == "json":
        return as_json(ladder)
    return _markdown(ladder) if format == "markdown" else _text(ladder, colour=colour)


def chart(ladder: Mapping[str, Any]) -> str:
    """Top-1 against latency as an SVG picture, a point a row."""
    points = [
        Point(row["title"], row["measurement"]["latency_ms"]["p50"], row["measurement"]["top1"])
        for row in ladder["rows"]
        if row["measurement"] is not None
        and row["measurement"]["latency_ms"] is not None
        and row["measurement"]["top1"] is not None
    ]
    return accuracy_against_latency(points, title=one_line(ladder["model"]["name"]))


# The columns


def _ratio(value: float | None) -> str:
    return "" if not value else f"{figures.significant(value, 3 if value >= 1 else 2)}×"


def _whole(count: int) -> str:
    return f"{count:,}"


def _parameters(row: _Row) -> str:
    return _whole(row["measurement"]["parameters"])


def _with_buffers(row: _Row) -> str:
    return _whole(row["measurement"]["parameters"] + row["measurement"]["buffers"])


def _pace(row: _Row) -> str:
    seconds = row["measurement"]["train_seconds_per_epoch"]
    return figures.NOT_MEASURED if seconds is None else f"{figures.significant(seconds)} s"


def _speed(row: _Row) -> str:
    speed = row["training"]["images_per_second"]
    return figures.NOT_MEASURED if speed is None else figures.significant(speed)


def p50(row: _Row) -> str:
    """The median latency of a row that was measured, in words."""
    found = _latency(row)
    return figures.NOT_MEASURED if found is None else figures.milliseconds(found.p50, spread=found.spread)


_NETWORK: tuple[tuple[str, str, Callable[[_Row], str]], ...] = (
    ("parameters", "parameters", _parameters),
    ("with buffers", "parameters_with_buffers", _with_buffers),
    ("MACs", "macs", lambda row: figures.count(row["measurement"]["macs"])),
    ("size", "size_bytes", lambda row: figures.size(row["measurement"]["size_bytes"])),
    ("top-1", "top1", lambda row: figures.percent(row["measurement"]["top1"])),
)
_COST: tuple[tuple[str, str, Callable[[_Row], str]], ...] = (
    ("s/epoch", "train_seconds_per_epoch", _pace),
    ("images/s", "train_images_per_second", _speed),
    ("latency p50", "latency_p50", p50),
    ("training memory", "train_peak_bytes", lambda row: figures.size(row["training"]["peak_bytes"])),
    (
        "predicting memory",
        "predict_peak_bytes",
        lambda row: figures.size(figures.seen(row["measurement"]["peak_rss_bytes"])),
    ),
)


def _cell(row: _Row, key: str, shown: Callable[[_Row], str], *, first: bool, between: str) -> str:
    """A figure and, but for the first row, `between` and what it is against that row's."""
    if row["measurement"] is None:
        return figures.NOT_MEASURED
    value = row["ratios"].get(key)
    against = ""
    if not first and key == "top1" and value is not None:
        against = f"{value:+.1f}".replace("-", "−")
    elif not first and value is not None and f"{key}_low" in row["ratios"]:
        against = figures.between(value, *(row["ratios"][f"{key}_{bound}"] for bound in ("low", "high")))
        against = against.replace(" (", f"{between}(")
    elif not first:
        against = _ratio(value)
    marks = {"train_seconds_per_epoch": "training", "latency_p50": "latency"}
    slower = any(words.startswith(marks.get(key, "-")) for words in row["slower"])
    return f"{shown(row)}{between if against else ''}{against}{SLOWER * slower}"


def _lines(
    ladder: Mapping[str, Any], columns: Sequence[tuple[str, str, Callable[[_Row], str]]], *, between: str
) -> list[list[str]]:
    return [
        [row["title"], *(_cell(row, key, shown, first=at == 0, between=between) for _, key, shown in columns)]
        for at, row in enumerate(ladder["rows"])
    ]


def _told(row: _Row) -> tuple[str, str, str]:
    """What runs the row, what its training figures stand for, and all there is to say about it."""
    notes = list(row["notes"])
    pair = (row["measurement"] or {}).get("paired")
    if pair:
        between = figures.points_between(pair["low"], pair["high"])
        notes.insert(0, f"top-1 {between} against the first row ({figures.p_value(pair['p_value'])})")
    if row["slower"]:
        notes.insert(0, f"slower than the row above: {', '.join(row['slower'])}")
    if row["measurement"] is None:
        return figures.NOT_MEASURED, figures.NOT_MEASURED, "; ".join(notes)
    steps, epochs = row["training"]["read_steps"], row["training"]["epochs"]
    trained = f"timed for {_counted(steps, 'step')}" if steps else _counted(epochs, "epoch")
    return f"{row['measurement']['runtime']} {row['measurement']['precision']}", trained, "; ".join(notes)


def _counted(count: int, word: str) -> str:
    return f"{count} {word}" if count == 1 else f"{count} {word}s"


def method(ladder: Mapping[str, Any]) -> list[str]:
    """How the figures came about, a sentence each."""
    cores, served = (_counted(ladder[key], "thread") for key in ("train_threads", "threads"))
    tuned = figures.allocator(ladder["environment"])
    epochs, taught = ladder["epochs"], sum(row["training"]["teacher_seconds"] for row in ladder["rows"])
    each = (
        f"each trained for {_counted(epochs, 'epoch')} with seed {ladder['seed']} and the same order of "
        "pictures, taught by the original"
        if epochs
        else "not trained: top-1 is what the carried-over weights give"
    )
    lines = [
        f"Every row starts from the original's weights, carried over by the surgery up to it, {each}.",
        "Numbers with × are improvements over the first row (above 1 is better), top-1 differs in points; "
        f"{SLOWER} is slower than the row above, {figures.NOT_MEASURED} not measured.",
        f"Training: slimcv's own loop in every row, the first included, {cores}, "
        f"{tuned}; memory is the largest resident set on top of PyTorch's own.",
        f"Latency: batch 1, median of all rows in one interleaved measurement, {served}, "
        f"{tuned}; in brackets the 95 % interval of the ratio; memory while predicting: a process of its "
        "own, allocator as it comes.",
    ]
    if any((row["measurement"] or {}).get("paired") for row in ladder["rows"]):
        lines.append(
            "Intervals of top-1 are 95 % ones, from the pictures that only one of the two rows gets right, "
            "p is by McNemar's test."
        )
    if any(row["training"]["read_steps"] for row in ladder["rows"]):
        lines.append(
            "Where training was only timed for a few steps, they stand for an epoch; the first row's top-1 "
            "is that of the model as it was given."
        )
    if taught:
        lines.append(f"Asking the teacher took {figures.duration(taught)} in all, not counted in the epochs.")
    return lines


# Terminal and Markdown


def _text(ladder: Mapping[str, Any], *, colour: bool) -> str:
    from rich.text import Text

    parts: list[RenderableType] = [
        Text(f"{one_line(ladder['model']['name'])} · {figures.duration(ladder['seconds'])}"),
        "",
    ]
    for columns in (_NETWORK, _COST):
        headings = ("", *(heading for heading, _, _ in columns))
        parts.append(table(headings, _lines(ladder, columns, between="\n"), right=range(1, 6)))
    told = [[one_line(text) for text in (row["title"], *_told(row))] for row in ladder["rows"]]
    parts.append(table(("", "runs in", "trained", "notes"), told, words={3}))
    parts += [Text(line) for line in method(ladder)]
    return draw(parts, colour=colour)


def _markdown(ladder: Mapping[str, Any]) -> str:
    columns = (*_NETWORK, *_COST)
    lines = [
        [*line, *_told(row)]
        for line, row in zip(_lines(ladder, columns, between=" "), ladder["rows"], strict=True)
    ]
    headings = ("", *(heading for heading, _, _ in columns), "runs in", "trained", "notes")
    recipes = [
        f"{cell(row['title'])}\n\n{fenced(row['recipe'], 'yaml')}" for row in ladder["rows"] if row["recipe"]
    ]
    sections = [
        f"# {cell(ladder['model']['name'])}, row upon row",
        grid(headings, lines),
        "\n".join(f"- {cell(line)}" for line in method(ladder)),
        "![Top-1 against latency](ladder.svg)",
        "## Data",
        facts(ladder["data"]),
        "## Recipes",
        "\n\n".join(recipes) or "none",
        *repeating(ladder),
    ]
    return "\n\n".join(sections) + "\n"
