"""The report on a terminal: one row a step as it happens, one before/after table at the end."""

from __future__ import annotations

import io
import os
import re
import textwrap
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, TextIO

from slimcv.report import comparison, figures, foretold
from slimcv.report.document import step_entry
from slimcv.report.quoting import one_line

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

    from slimcv.results import Record

WIDTH = 96
_BLANK_LINES = re.compile(r"\n{3,}")
_COLOURS = {"accepted": "green", "rejected": "red", "skipped": "yellow"}


def wants_colour(stream: TextIO) -> bool:
    """A terminal that shows colours, whose user has not set NO_COLOR (https://no-color.org)."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def step_header() -> str:
    """The line above the rows of `step_line`."""
    return _row("#", "step", f"{'outcome':<9}", ("top-1", "latency", "gain", "MACs", "took"))


def step_line(record: Record, *, colour: bool = False) -> str:
    """A step as one row of at most 96 columns, its reason wrapped beneath it; no line break at the end.

    `gain` is the speed-up over the variant the step was applied to, `top-1` of the tuning split.
    """
    return _step_line(step_entry(record), colour=colour)


def render_text(report: Mapping[str, Any], *, colour: bool, steps: bool = True) -> str:
    """The whole report for a terminal, at most 96 columns wide."""
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


def draw(parts: Iterable[RenderableType], *, colour: bool, width: int = WIDTH) -> str:
    """Rich renderables as text, with or without colour codes, whatever the terminal of this process."""
    from rich.console import Console

    console = Console(
        file=io.StringIO(),
        width=width,
        force_terminal=colour,
        color_system="standard" if colour else None,
        no_color=not colour,
        highlight=False,
        markup=False,
        emoji=False,
        legacy_windows=False,
    )
    with console.capture() as capture:
        for part in parts:
            console.print(part)
    lines = "".join(f"{line.rstrip()}\n" for line in capture.get().splitlines())
    return _BLANK_LINES.sub("\n\n", lines)


def table(*headings: str, right: frozenset[int] = frozenset()) -> Table:
    """An empty table in the one look of all of slimcv's tables; columns in `right` are set to the right."""
    from rich import box
    from rich.table import Table

    drawn = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold")
    for number, heading in enumerate(headings):
        drawn.add_column(heading, justify="right" if number in right else "left", overflow="fold")
    return drawn


def _step_line(step: Mapping[str, Any], *, colour: bool) -> str:
    after = step["measurement"] or {}
    name, outcome = one_line(step["name"]), one_line(step["outcome"])
    painted = f"{_shortened(outcome, 9):<9}"
    if colour and outcome in _COLOURS:
        painted = _painted(painted, _COLOURS[outcome])
    columns = (
        figures.percent(after.get("top1")),
        comparison.latency_of(after),
        comparison.changes_of(step),
        figures.count(after.get("macs")),
        figures.duration(step["seconds"]),
    )
    row = _row(str(step["number"]), _shortened(name, 22), painted, columns)
    reasons = [one_line(step["reason"]), comparison.accuracy_note(step)]
    reason = "; ".join(words for words in reasons if words)
    beneath = textwrap.wrap(reason, WIDTH, initial_indent=" " * 4, subsequent_indent=" " * 4)
    return "\n".join([row, *beneath])


def _row(number: str, name: str, outcome: str, columns: tuple[str, ...]) -> str:
    set_right = (f"{text:>{width}}" for text, width in zip(columns, (7, 9, 7, 7, 11), strict=True))
    return f"{number:>2}  {name:<22} {outcome} {' '.join(set_right)}"


def _before_after(report: Mapping[str, Any]) -> Table:
    drawn = table("", "original", "optimised", "change", right=frozenset({1, 2, 3}))
    for row in comparison.rows(report):
        drawn.add_row(*(_plain(text) for text in (row.label, row.original, row.optimized, row.change)))
    return drawn


def _unmodified(report: Mapping[str, Any]) -> Table:
    drawn = table("the unmodified network", "latency p50", "against the base", right=frozenset({1, 2}))
    for line in comparison.unmodified(report):
        drawn.add_row(*(_plain(text) for text in line))
    return drawn


def _ways(ways: Iterable[comparison.Way]) -> Table:
    drawn = table("every way to run it", "precision", "latency p50", "", right=frozenset({2}))
    for way in ways:
        words = (way.name, way.precision, way.latency, way.outcome)
        drawn.add_row(*(_plain(one_line(text)) for text in words))
    return drawn


def _closing(report: Mapping[str, Any]) -> list[str]:
    lines = [comparison.gate(report), comparison.method(report)]
    threads = {report[key]["threads"] for key in ("original", "optimized")}
    if len(threads) > 1:
        lines.append(
            "original and optimised ran on different numbers of threads: the ratios mix both effects"
        )
    if report["data"] is None:
        lines.append(comparison.no_data(report))
    lines += [foretold.sentence(report)] if foretold.sentence(report) else []
    lines.append(f"{figures.NOT_MEASURED} stands for not measured")
    return lines


def _files(artifacts: Iterable[Mapping[str, Any]]) -> Table:
    drawn = table("file", "runs in", "size", "latency", "max. difference", right=frozenset({2, 3, 4}))
    for artifact in artifacts:
        drawn.add_row(
            _plain(one_line(artifact["path"])),
            _plain(f"{artifact['runtime']} {artifact['precision']}"),
            figures.size(artifact["bytes"]),
            figures.milliseconds(artifact["latency_ms"], spread=artifact.get("spread")),
            difference(artifact["max_abs_diff"]),
        )
    return drawn


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


def _shortened(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 1] + "…"
