"""Whether the entries of a recipe stand in an order that works: no step back, and nothing gained undone."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations, pairwise
from typing import TYPE_CHECKING

from slimcv.errors import SlimcvError
from slimcv.recipe.roads import courses

if TYPE_CHECKING:
    from slimcv.recipe import Entry
    from slimcv.step import Gain


def check(entries: Sequence[Entry], where: str) -> None:
    """Raise SlimcvError for an entry that undoes what an earlier one gained, or steps back a stage.

    Each way through the recipe is looked at, and roads must part and meet again before anything is fused.
    `where` is what messages begin with.
    """
    from slimcv.step import Stage

    for number, entry in enumerate(entries, start=1):
        if entry.road is not None and entry.step.stage >= Stage.FUSE:
            raise SlimcvError(
                f"{where}: entry {number} '{entry.name}' ({entry.step.stage.name.lower()}) is in an either",
                "roads are of surgery, pruning and training; put it behind the either",
            )
    for course in courses(entries):
        _check(course, where)


def _check(course: Sequence[tuple[int, Entry]], where: str) -> None:
    for (first, earlier), (second, later) in combinations(course, 2):
        gained = earlier.step.gains
        reason = None if gained is None else later.undoes(gained)
        if gained is not None and reason is not None:
            raise SlimcvError(
                f"{where}: entry {second} '{later.name}' would undo the {gained} that entry {first} "
                f"'{earlier.name}' gains: {reason}",
                _way_out(later, earlier, gained),
            )
        pattern = earlier.step.zero_pattern
        shifted = None if pattern is None else later.step.shifts(pattern)
        if shifted is not None:
            raise SlimcvError(
                f"{where}: entry {second} '{later.name}' would undo the pattern {pattern} that entry {first} "
                f"'{earlier.name}' gains: {shifted}",
                f"put '{later.name}' before '{earlier.name}', or give that `pattern: unstructured`",
            )
    for (_, earlier), (number, later) in pairwise(course):
        if later.step.stage < earlier.step.stage:
            raise SlimcvError(
                f"{where}: entry {number} '{later.name}' ({later.step.stage.name.lower()}) comes after "
                f"'{earlier.name}' ({earlier.step.stage.name.lower()})",
                "the order is " + ", ".join(stage.name.lower() for stage in type(later.step.stage)),
            )


def _way_out(later: Entry, earlier: Entry, gained: Gain) -> str:
    if later.step.stage < earlier.step.stage:
        return f"put '{later.name}' before '{earlier.name}'"
    if "preserve" in type(later.step).model_fields:
        return f"give it `preserve: [{gained}]`, with whatever else it is to keep"
    return f"leave one of the two out, or put '{later.name}' before '{earlier.name}'"
