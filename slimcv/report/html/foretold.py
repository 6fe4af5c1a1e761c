"""What steps were foretold to gain: on the page of a run beside what they gained, on a profile's alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from slimcv.report import figures, foretold, pasting, predictions
from slimcv.report.charts import rows, scale
from slimcv.report.html.parts import Block, Cell, Chart, Code, Note, Table

_UNCHANGED = 1.0


def of_run(report: Mapping[str, Any]) -> list[Block]:
    """Foretold against measured, for every step that was both."""
    found = foretold.of(report)
    if not found:
        return []
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
    lines = tuple(
        (
            Cell(one.step),
            Cell(f"{figures.significant(one.foretold, foretold.DIGITS)}×", one.foretold),
            Cell(foretold.measured(one), one.measured),
            Cell(f"{100 * one.error:.0f} %", one.error),
            Cell(figures.share(one.timed_share), one.timed_share),
            Cell(one.verdict),
        )
        for one in found
    )
    told = (
        "How many times faster each step makes the network: foretold, before it was tried, from the times of "
        "the layers that it would make; and measured on the whole network. 1× is no change."
    )
    table = Table("Each step's gain, foretold and measured", foretold.HEADINGS, lines, frozenset({0, 5}))
    sentence = foretold.sentence(report)
    return [
        Chart(
            "Foretold and measured",
            told,
            rows.chart(drawn, axis, title="times faster", tick=lambda value: f"{value:g}×"),
            table,
            key=(("before", "foretold"), ("after", "measured")),
        ),
        Note(f"{sentence[0].upper()}{sentence[1:]}.", "quiet"),
    ]


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
