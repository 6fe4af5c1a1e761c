"""The report on a terminal: one row a step as it happens, one before/after table at the end."""

from __future__ import annotations

import os
import textwrap
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, TextIO

from slimcv.quoting import one_line
from slimcv.report import comparison, figures, foretold, packing, rungs, sentences, trainings
from slimcv.report.document import step_entry
from slimcv.report.terminal import WIDTH, draw, is_terminal, shortened, table

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

    from slimcv.results import Record

_STEP, _FIGURES = 22, (7, 9, 7, 7, 10)
"""Columns of a step's name and of its figures, so that a row is no wider than a terminal."""

_COLOURS = {"accepted": "green", "rejected": "red", "skipped": "yellow"}


def wants_colour(stream: TextIO) -> bool:
    """A terminal that shows colours, whose user has not set NO_COLOR (https://no-color.org)."""
    return is_terminal(stream) and not os.environ.get("NO_COLOR")


def step_header() -> str:
    """The line above the rows of `step_line`."""
    return _row("#", "step", f"{'outcome':<8}", ("top-1", "latency", "gain", "MACs", "took"))


def step_line(record: Record, *, colour: bool = False) -> str:
    """A step as one row of at most 80 columns, its reason wrapped beneath it; no line break at the end.

    `gain` is the speed-up over the variant the step was applied to, `top-1` of the tuning split.
    """
    return _step_line(step_entry(record), colour=colour)


def render_text(report: Mapping[str, Any], *, colour: bool, steps: bool = True) -> str:
    """The whole report for a terminal, at most 80 columns wide."""
    model, recipe = one_line(report["model"].get("name") or report["model"].get("source") or "model"), ""
    if report["recipe"].get("name"):
        recipe = f" · recipe {one_line(report['recipe']['name'])}"
    parts: list[RenderableType] = [_plain(f"{model}{recipe} · {figures.duration(report['seconds'])}"), ""]
    if steps and report["steps"]:
        lines = [step_header(), *(_step_line(step, colour=colour) for step in report["steps"])]
        parts += [_ansi("\n".join(lines)), ""]
    parts += [_before_after(report), _unmodified(report)]
    sentence = comparison.beyond_runtime(report)
    parts += [_plain(sentence)] if sentence else []
    if ways := comparison.bake_off(report):
        parts += ["", _ways(ways)]
    parts += ["", *(_plain(line) for line in _closing(report))]
    if report["artifacts"]:
        parts += ["", _files(report["artifacts"])]
    return draw(parts, colour=colour)


def _step_line(step: Mapping[str, Any], *, colour: bool) -> str:
    after = step["measurement"] or {}
    name, outcome = one_line(step["name"]), one_line(step["outcome"])
    painted = f"{shortened(outcome, 8):<8}"
    if colour and outcome in _COLOURS:
        painted = _painted(painted, _COLOURS[outcome])
    columns = (
        figures.percent(after.get("top1")),
        comparison.latency_of(after),
        comparison.changes_of(step),
        figures.count(after.get("macs")),
        figures.duration(step["seconds"]),
    )
    row = _row(str(step["number"]), shortened(name, _STEP), painted, columns)
    reasons = [one_line(step["reason"]), sentences.accuracy_note(step)]
    reason = "; ".join(words for words in reasons if words)
    beneath = textwrap.wrap(reason, WIDTH, initial_indent=" " * 4, subsequent_indent=" " * 4)
    return "\n".join([row, *beneath])


def _row(number: str, name: str, outcome: str, columns: tuple[str, ...]) -> str:
    set_right = (f"{text:>{width}}" for text, width in zip(columns, _FIGURES, strict=True))
    return f"{number:>2}  {name:<{_STEP}} {outcome} {' '.join(set_right)}"


def _before_after(report: Mapping[str, Any]) -> Table:
    lines = [(row.label, row.original, row.optimized, row.change) for row in comparison.rows(report)]
    return table(("", "original", "optimised", "change"), lines, right={1, 2, 3}, names=(), words={1, 2, 3})


def _unmodified(report: Mapping[str, Any]) -> Table:
    headings = ("the unmodified network", "latency p50", "against the base")
    return table(headings, comparison.unmodified(report), right={1, 2}, names=(), words={0})


def _ways(ways: Iterable[comparison.Way]) -> Table:
    lines = ((one_line(way.name), way.precision, way.latency, one_line(way.outcome)) for way in ways)
    return table(("every way to run it", "precision", "latency p50", ""), lines, right={2}, words={3})


def _closing(report: Mapping[str, Any]) -> list[str]:
    lines = [sentences.gate(report), *filter(None, [sentences.accuracy(report)]), sentences.method(report)]
    lines += [*packing.sentence(report)]
    threads = {report[key]["threads"] for key in ("original", "optimized")}
    if len(threads) > 1:
        lines.append(
            "original and optimised ran on different numbers of threads: the ratios mix both effects"
        )
    if report["data"] is None:
        lines.append(sentences.no_data(report))
    lines += [one_line(rungs.line(report))] if rungs.line(report) else []
    lines += [one_line(line) for line in (foretold.sentence(report), foretold.left_out(report)) if line]
    lines += [one_line(line) for line in trainings.lines(report)]
    lines.append(f"{figures.NOT_MEASURED} stands for not measured")
    return lines


def _files(artifacts: Iterable[Mapping[str, Any]]) -> Table:
    lines = (
        (
            one_line(artifact["path"]),
            f"{artifact['runtime']} {artifact['precision']}",
            figures.size(artifact["bytes"]),
            figures.milliseconds(artifact["latency_ms"], spread=artifact.get("spread")),
            difference(artifact["max_abs_diff"]),
        )
        for artifact in artifacts
    )
    return table(("file", "runs in", "size", "latency", "max. difference"), lines, right={2, 3, 4}, words={1})


def difference(value: float | None) -> str:
    """A largest absolute difference of outputs, with two digits."""
    return figures.NOT_MEASURED if value is None else f"{value:.1e}" if value else "0"


def _plain(text: str) -> RenderableType:
    from rich.text import Text

    return Text(text)


def _ansi(text: str) -> RenderableType:
    from rich.text import Text

    return Text.from_ansi(text)


def _painted(text: str, style: str) -> str:
    from rich.text import Text

    return draw([Text(text, style=style)], colour=True).rstrip("\n")
