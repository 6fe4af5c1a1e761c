"""A profiled training drawn: what a step is made of, what was tried, and what to change."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from slimcv.quoting import cell, one_line
from slimcv.report import as_json, check_format, figures
from slimcv.report.markdown import grid, repeating
from slimcv.report.terminal import draw, table

if TYPE_CHECKING:
    from rich.console import RenderableType

_PART_HEADINGS = ("part of a step", "ms", "share", "first epoch, ms", "share")
_TRIED_HEADINGS = ("tried", "ms a picture", "as it is", "gain")
_BACKWARD_HEADINGS = ("backward computation of", "ms", "share")
_WORTH_A_ROW = 0.01
_ADVICE = "What to change"


def render_training(profile: Mapping[str, Any], format: str, *, colour: bool = False) -> str:
    """A `TrainingProfile.as_json()` as text, JSON or Markdown. Raises SlimcvError on an unknown format."""
    check_format(format)
    if format == "json":
        return as_json(profile)
    return _markdown(profile) if format == "markdown" else _text(profile, colour=colour)


def _text(profile: Mapping[str, Any], *, colour: bool) -> str:
    from rich.padding import Padding
    from rich.text import Text

    training = profile["training"]
    parts: list[RenderableType] = [Text(_title(profile))]
    for headings, lines in tables(training):
        cells = [[one_line(text) for text in line] for line in lines]
        parts.append(table(headings, cells, right=range(1, len(headings)), names=(), words={0}))
    parts += [Text(f"{label}: {value}") for label, value in totals(training)]
    parts += ["", Text(_ADVICE, style="bold")]
    for number, advice in enumerate(training["advice"], start=1):
        parts.append(Padding(Text(f"{number}. {one_line(advice['text'])}"), (0, 0, 0, 2)))
    if not training["advice"]:
        parts.append(Text("  nothing stands out"))
    parts += [Text(one_line(remark)) for remark in training["remarks"]]
    return draw(parts, colour=colour)


def _markdown(profile: Mapping[str, Any]) -> str:
    training = profile["training"]
    advice = [f"{number}. {cell(one['text'])}" for number, one in enumerate(training["advice"], start=1)]
    sections = [
        f"# {cell(_title(profile))}",
        f"## {_ADVICE}",
        "\n".join(advice) or "nothing stands out",
        *(cell(remark) for remark in training["remarks"]),
        "## A step",
        *(grid(headings, lines) for headings, lines in tables(training)),
        "## Totals",
        grid(("", "value"), totals(training), left=2),
        *repeating(profile),
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def _title(profile: Mapping[str, Any]) -> str:
    model, training = profile["model"], profile["training"]
    return (
        f"{one_line(model['name'])}, input {model['input']}: a training step of {training['batch']} pictures"
    )


def tables(training: Mapping[str, Any]) -> list[tuple[tuple[str, ...], list[tuple[str, ...]]]]:
    """Headings and lines of each table that has any; the first is that of a step's parts."""
    found = [
        (_PART_HEADINGS, _parts(training)),
        (_BACKWARD_HEADINGS, _backward(training)),
        (_TRIED_HEADINGS, _tried(training)),
    ]
    return [(headings, lines) for headings, lines in found if lines]


def _parts(training: Mapping[str, Any]) -> list[tuple[str, ...]]:
    rows = [
        (
            part["name"],
            _milliseconds(part["ms"]),
            figures.share(part["share"]),
            _milliseconds(part["first_ms"]),
            figures.share(part["first_share"]),
        )
        for part in training["parts"]
    ]
    first_ms = sum(part["first_ms"] for part in training["parts"])
    return [*rows, ("whole step", _milliseconds(training["step_ms"]), "", _milliseconds(first_ms), "")]


def _backward(training: Mapping[str, Any]) -> list[tuple[str, ...]]:
    return [
        (kind["kind"], _milliseconds(kind["ms"]), figures.share(kind["share"]))
        for kind in training["backward"]
        if kind["share"] >= _WORTH_A_ROW
    ]


def _tried(training: Mapping[str, Any]) -> list[tuple[str, ...]]:
    return [
        (
            one["name"],
            _milliseconds(one["ms_each"]),
            _milliseconds(one["as_is_ms_each"]),
            figures.times(one["gain"], "faster", "slower", digits=2),
        )
        for one in training["tried"]
    ]


def totals(training: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The figures of the whole training, each with its name."""
    threads = f"{training['threads']} thread{'s' if training['threads'] != 1 else ''}"
    lines = [
        (
            "speed",
            f"{figures.significant(training['images_per_second'])} images/s, {training['precision']}, "
            f"{threads}, {figures.significant(training['busy_threads'], 2)} of them busy "
            f"(medians of {training['steps']} steps)",
        ),
        (
            f"an epoch of {training['pictures']:,} pictures",
            f"{figures.duration(training['epoch_seconds'])}, the first one "
            f"{figures.duration(training['first_epoch_seconds'])} with decoding "
            f"({figures.milliseconds(training['decode_ms_each'])} a picture, all cores)",
        ),
    ]
    teacher = training["teacher"]
    if teacher is not None:
        cost = (
            f"{figures.milliseconds(teacher['live_step_ms'])} on top of every step"
            if teacher["how"] == "live"
            else f"{figures.duration(teacher['once_seconds'])} for all pictures and mirror images, once"
        )
        each = f"{figures.milliseconds(teacher['ms_each'])} a picture in {teacher['form']}"
        lines.append(("teacher", f"{each}, {cost}"))
    peak = training["peak_rss_bytes"]
    lines.append(
        (
            "peak memory while training",
            "not measured"
            if peak is None
            else f"{figures.size(peak)} for the process, "
            f"{figures.size(training['trained_bytes'])} of it added by training",
        )
    )
    return lines


def _milliseconds(value: float) -> str:
    """Without the unit, to a hundredth at best."""
    if value < 0.01:
        return "< 0.01"
    return f"{value:.2f}" if value < 10 else figures.significant(value)
