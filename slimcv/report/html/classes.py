"""Accuracy class by class, the confusions that became more frequent, and pictures whose answer changed."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

from slimcv import paired
from slimcv.report import figures
from slimcv.report.charts import rows, scale
from slimcv.report.html.parts import Block, Cell, Chart, Note, Picture, Pictures, Table

SHOWN = 24
"""Of more classes than these, only those that changed most are drawn; the table has all."""

PAIRS = 12
_HEADINGS = ("class", "pictures", "original", "optimised", "change", "95 % interval")
_THUMBNAIL = re.compile(r"data:image/jpeg;base64,[A-Za-z0-9+/=]+")


@dataclass(frozen=True)
class _Class:
    """Percent right before and after; `low` and `high` bound the 95 % interval of the change, in points."""

    name: str
    pictures: int
    before: float
    after: float
    low: float
    high: float


def blocks(said: Mapping[str, Any] | None) -> list[Block]:
    """Nothing where no predictions were kept."""
    if said is None or not said["labels"]:
        return []
    labels, before, after = said["labels"], said["original"], said["optimized"]
    return [
        _flips(labels, before, after),
        _by_class(_classes(said["classes"], labels, before, after)),
        *_confusions(said["classes"], labels, before, after),
        *_examples(said),
    ]


def side_by_side(runs: Sequence[tuple[str, Mapping[str, Any]]]) -> list[Block]:
    """The right answers in each class of what each named run shipped, where they were asked the same.

    Nothing where pictures or classes are not the same in all; the class on which they differ most is first.
    """
    if len(runs) < 2 or any(
        said[key] != runs[0][1][key] for _, said in runs for key in ("classes", "labels", "pictures")
    ):
        return []
    found: dict[str, list[_Class]] = {}
    for _, said in runs:
        for one in _classes(said["classes"], said["labels"], said["original"], said["optimized"]):
            found.setdefault(one.name, []).append(one)
    order = sorted(
        found.values(),
        key=lambda each: (min(one.after for one in each) - max(one.after for one in each), each[0].name),
    )
    lines = tuple(
        (
            Cell(each[0].name),
            Cell(f"{each[0].pictures:,}", each[0].pictures),
            *(
                Cell(f"{figures.percent(one.after)} ({_change(one)})", one.after, mark=_mark(one))
                for one in each
            ),
        )
        for each in order
    )
    caption = "Right answers in each class, in brackets the change against the run's original, in points"
    return [Table(caption, ("class", "pictures", *(name for name, _ in runs)), lines)]


def _flips(labels: Sequence[int], before: Sequence[int], after: Sequence[int]) -> Note:
    pairs = list(zip(labels, before, after, strict=True))
    lost = sum(old == label != new for label, old, new in pairs)
    won = sum(old != label == new for label, old, new in pairs)
    other = sum(old != new and label not in (old, new) for label, old, new in pairs)
    return Note(
        f"Of {len(pairs):,} pictures of val/, {lost} were answered right by the original and are "
        "answered wrong "
        f"now, {won} the other way round; {other} more changed from one wrong answer to another."
    )


def _classes(
    names: Sequence[str], labels: Sequence[int], before: Sequence[int], after: Sequence[int]
) -> list[_Class]:
    pictures = Counter(labels)
    right = [
        Counter(label for label, answer in zip(labels, answers, strict=True) if label == answer)
        for answers in (before, after)
    ]
    asked = list(zip(labels, before, after, strict=True))
    lost = Counter(label for label, old, new in asked if old == label != new)
    gained = Counter(label for label, old, new in asked if old != label == new)
    found = []
    for at, name in enumerate(names):
        if pictures[at]:
            old, new = (100.0 * side[at] / pictures[at] for side in right)
            low, high = paired.interval(lost[at], gained[at], pictures[at])
            found.append(_Class(name, pictures[at], old, new, 100 * low, 100 * high))
    return sorted(found, key=lambda one: (one.after - one.before, one.name))


def _by_class(found: Sequence[_Class]) -> Chart:
    drawn = found
    if len(found) > SHOWN:
        most = sorted(found, key=lambda one: -abs(one.after - one.before))[:SHOWN]
        drawn = [one for one in found if one in most]
    axis = scale.linear([value for one in drawn for value in (one.before, one.after)] + [100.0], lines=6)
    axis = scale.Scale(axis.low, 100.0, tuple(tick for tick in axis.ticks if tick <= 100.0))
    marks = [
        (
            one.name,
            f"{one.pictures} pictures",
            f"{figures.percent(one.after)} ({_change(one)})",
            rows.dumbbell(axis, one.before, one.after),
        )
        for one in drawn
    ]
    lines = tuple(
        (
            Cell(one.name),
            Cell(f"{one.pictures:,}", one.pictures),
            Cell(figures.percent(one.before), one.before),
            Cell(figures.percent(one.after), one.after),
            Cell(_change(one), one.after - one.before, mark=_mark(one)),
            Cell(figures.points_between(one.low, one.high), one.low),
        )
        for one in found
    )
    told = (
        "The small grey dot is the original, the large one what was shipped; the class that lost most is "
        "first. Few pictures decide little: marked in the table are the changes whose 95 % interval leaves "
        "out 0."
    )
    if len(drawn) < len(found):
        told += f" Drawn are the {len(drawn)} of {len(found)} classes that changed most."
    return Chart(
        "Right answers in each class of val/",
        told,
        rows.chart(marks, axis, title="right answers", tick=lambda value: f"{value:g} %"),
        Table("Right answers in each class", _HEADINGS, lines),
        key=(("before", "original"), ("better", "better"), ("worse", "worse")),
    )


def _change(one: _Class) -> str:
    return f"{one.after - one.before:+.1f}".replace("-", "−") if one.after != one.before else "±0"


def _mark(one: _Class) -> str:
    """What the pictures of the class show, not what chance may have made of them."""
    return "better" if one.low > 0 else "worse" if one.high < 0 else ""


def _confusions(
    names: Sequence[str], labels: Sequence[int], before: Sequence[int], after: Sequence[int]
) -> list[Block]:
    """Pairs of a class and a wrong answer to it that is given more often than the original gave it."""
    old, new = (
        Counter((label, answer) for label, answer in zip(labels, answers, strict=True) if label != answer)
        for answers in (before, after)
    )
    worse = sorted(
        ((new[pair] - old[pair], pair) for pair in new if new[pair] > old[pair]),
        key=lambda one: (-one[0], one[1]),
    )
    if not worse:
        return [Note("No confusion of two classes became more frequent.")]
    lines = tuple(
        (
            Cell(names[label]),
            Cell(names[answer]),
            Cell(str(old[label, answer]), old[label, answer]),
            Cell(str(new[label, answer]), new[label, answer]),
            Cell(f"+{more}", more, mark="worse"),
        )
        for more, (label, answer) in worse[:PAIRS]
    )
    caption = "Confusions that became more frequent"
    if len(worse) > PAIRS:
        caption += f": the first {PAIRS} of {len(worse)}"
    headings = ("class", "answered as", "original", "optimised", "change")
    return [Table(caption, headings, lines, frozenset({0, 1}))]


def _examples(said: Mapping[str, Any]) -> list[Block]:
    names, pictures = said["classes"], []
    for example in said["examples"]:
        # The file may come from anywhere: what is no small picture is left away.
        if not isinstance(example, dict):
            continue
        at, source = example.get("picture"), example.get("thumbnail")
        if not isinstance(at, int) or not 0 <= at < len(said["labels"]) or not isinstance(source, str):
            continue
        if not _THUMBNAIL.fullmatch(source):
            continue
        label, old, new = (names[said[key][at]] for key in ("labels", "original", "optimized"))
        worse = new != label
        pictures.append(
            Picture(
                source,
                f"A picture of the class {label}, answered as {old} before and as {new} now",
                (
                    f"{label}",
                    f"{old} → {new}",
                    f"{'wrong' if worse else 'right'} now, {_file(said['pictures'][at])}",
                ),
                "worse" if worse else "better",
            )
        )
    if not pictures:
        return []
    told = "Each with its class, the answers before and after, and its file. At the size they are decoded to."
    return [Pictures("Pictures whose answer changed", told, tuple(pictures))]


def _file(path: object) -> str:
    return PurePath(str(path)).name
