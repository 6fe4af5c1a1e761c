"""`either` in a recipe: several roads from the same place, of which a measurement takes one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

from slimcv.errors import SlimcvError

if TYPE_CHECKING:
    from slimcv.recipe import Entry

EITHER = "either"
_FORM = "either: [[first step, …], [another step, …]]"


@dataclass(frozen=True)
class Road:
    """Where an entry stands: road `number` of `count` at the recipe's fork `fork`, all counted from 0."""

    fork: int
    number: int
    count: int

    def __str__(self) -> str:
        return f"road {self.number + 1} of {self.count}"


def spread(steps: list[Any], path: Path) -> Iterator[tuple[list[Any], int, Road | None]]:
    """Every place of a step under `steps`: the list it stands in, its position there, its road.

    Raises SlimcvError for an `either` that is none.
    """
    forks = 0
    for at, step in enumerate(steps):
        if not isinstance(step, dict) or EITHER not in step:
            yield steps, at, None
            continue
        roads = step[EITHER]
        if len(step) > 1:
            others = ", ".join(str(key) for key in step if key != EITHER)
            raise SlimcvError(f"{path}: entry {at + 1}: {others} beside either", f"an entry is {_FORM}")
        if not isinstance(roads, list) or len(roads) < 2 or not all(isinstance(r, list) and r for r in roads):
            raise SlimcvError(f"{path}: entry {at + 1}: either needs two or more lists of steps", _FORM)
        for number, road in enumerate(roads):
            for place, inner in enumerate(road):
                if isinstance(inner, dict) and EITHER in inner:
                    raise SlimcvError(f"{path}: entry {at + 1}: an either within an either", "put it behind")
                yield road, place, Road(forks, number, len(roads))
        forks += 1


def courses(entries: Sequence[Entry]) -> Iterator[list[tuple[int, Entry]]]:
    """Every way through a recipe: its entries with their numbers, from 1, one road of each fork."""
    counts = {entry.road.fork: entry.road.count for entry in entries if entry.road is not None}
    for chosen in product(*(range(count) for count in counts.values())):
        taken = dict(zip(counts, chosen, strict=True))
        yield [(at, entry) for at, entry in enumerate(entries, start=1) if on_course(entry, taken)]


def on_course(entry: Entry, taken: Mapping[int, int]) -> bool:
    """Whether an entry is on the roads taken so far; where a fork is still ahead, each of its roads is."""
    return entry.road is None or taken.get(entry.road.fork, entry.road.number) == entry.road.number
