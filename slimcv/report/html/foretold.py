"""What steps were foretold to gain: on the page of a run beside what they gained, on a profile's alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from slimcv.report import figures, foretold, pasting, predictions
from slimcv.report.charts import rows, scale
from slimcv.report.html.parts import Block, Cell, Chart, Code, Note, Table

_UNCHANGED = 1.0


def of_run(report: Mapping[str, Any]) -> list[Block]:
    """Foretold against measured, for every step that was both, and why others were not foretold."""
    found, left_out = foretold.of(report), foretold.left_out(report)
    quiet = [
        Note(f"{line[0].upper()}{line[1:]}.", "quiet")
        for line in (foretold.sentence(report), left_out)
        if line
    ]
    if not found:
        return [*quiet]
    values = [value for one in found for value in (one.foretold, one.measured)]
    axis = scale.linear([_UNCHANGED, *values], zero=True)
    drawn = [
        (
            one.step,
            one.verdict,
            f"{figures.significant(one.foretold, foretold.DIGITS)}× → {foretold.measured(one)}",
            rows.pair(axis, one.foretold, one.measured),
        )
        for one in found
    ]
    told = (
        "How many times faster each step makes the network: foretold, before it was tried, from the times of "
        "the layers that it would make; and measured on the whole network. 1× is no change."
    )
    return [
        Chart(
            "Foretold and measured",
            told,
            rows.chart(drawn, axis, title="times faster", tick=lambda value: f"{value:g}×"),
            _compared(report),
            key=(("before", "foretold"), ("after", "measured")),
        ),
        *quiet,
    ]


def _compared(report: Mapping[str, Any]) -> Table:
    """Speed and bytes of every step that was timed, those without a prediction last."""
    sorts: list[tuple[float | None, ...]] = [
        (
            None, one.foretold, one.measured, one.error, _left(one.weights), _left(one.file), one.bytes_error,
            one.timed_share, *(one.training or (None, None)), one.training_error, None,
        )
        for one in foretold.of(report)
    ]  # fmt: skip
    sorts += [
        (None, None, one.measured, None, None, _left(one.file), *[None] * 6)
        for one in foretold.unforetold(report)
    ]
    lines = tuple(
        tuple(Cell(text, sort) for text, sort in zip(words, values, strict=True))
        for words, values in zip(foretold.rows(report), sorts, strict=True)
    )
    why = len(foretold.HEADINGS) - 1
    return Table("Each step's gain, foretold and measured", foretold.HEADINGS, lines, frozenset({0, why}))


def _left(bytes: tuple[int, int] | None) -> float | None:
    return None if bytes is None else bytes[1] / bytes[0]


def of_profile(profile: Mapping[str, Any]) -> list[Block]:
    """What each step would give, one at a time; lines to paste, and the steps that only trying tells of."""
    known = [one for one in profile.get("predictions") or () if one["problem"] is None]
    if not known:
        return []
    timed = [one for one in known if one["after_ms"] is not None]
    blocks: list[Block] = [_chart(profile, timed)] if timed else []
    left_out = predictions.left_out(profile)
    for title, pasted in (
        ("For a recipe's steps: a line for each of them alone", pasting.each(profile)),
        ("For a recipe: the steps that would save time", pasting.for_speed(profile)),
        ("For a recipe: the steps that would save bytes", pasting.for_size(profile)),
    ):
        blocks += [Code(title, pasted)] if pasted else []
    if left_out:
        blocks.append(Note(f"Not foretold: {left_out}.", "quiet"))
    return blocks


def _chart(profile: Mapping[str, Any], timed: list[Mapping[str, Any]]) -> Chart:
    axis = scale.linear([value for one in timed for value in (one["before_ms"], one["after_ms"])], zero=True)
    drawn = [
        (
            one["step"],
            one["verdict"] or one["note"],
            f"{figures.significant(one['before_ms'], 2)} → {figures.significant(one['after_ms'], 2)} ms",
            rows.pair(axis, one["before_ms"], one["after_ms"]),
        )
        for one in timed
    ]
    told = (
        "Milliseconds of the layers for one picture, as they are and with the step alone, its settings the "
        "defaults. Foretold from the layers that the step would make, timed here."
    )
    return Chart(
        "What each step would give, one at a time",
        told,
        rows.chart(drawn, axis, title="ms", tick=lambda value: f"{value:g}"),
        _table(profile),
        key=(("before", "as it is"), ("after", "with the step")),
    )


def _table(profile: Mapping[str, Any]) -> Table:
    known = [one for one in profile["predictions"] if one["problem"] is None]
    lines = []
    for one, words in zip(known, predictions.rows(profile), strict=True):
        sorts = (
            None,
            one["after_ms"],
            predictions.saved(one, "ms"),
            one["before_ms"] / one["after_ms"] if one["after_ms"] else None,
            predictions.saved(one, "bytes"),
            one["after_bytes"],
            predictions.saved(one, "training_ms"),
            one["training_after_ms"],
            None,
        )
        where = Cell(str(one["runtime"]))
        cells = [Cell(text, sort) for text, sort in zip(words, sorts, strict=True)]
        lines.append((cells[0], where, *cells[1:]))
    headings = (predictions.HEADINGS[0], "runs in", *predictions.HEADINGS[1:])
    caption = f"What each step would save; an epoch is one of {predictions.PICTURES:,} pictures"
    return Table(caption, headings, tuple(lines), frozenset({0, 1, len(headings) - 1}))
