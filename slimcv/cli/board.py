"""What is known of a running recipe: what became of each step, what is under way, the best so far."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from slimcv.results import Measurement, Record

TO_COME, RUNNING = "to come", "running"
ORIGINAL, SHIP = "original", "ship"
"""What comes before and after the steps of a recipe."""


@dataclass
class Row:
    """A step of the recipe: `state` is an outcome, or whether it is under way; `record` its last decision."""

    name: str
    state: str = TO_COME
    record: Record | None = None
    begun: float = 0.0


class Board:
    """What is known of a run. `begin`, `decide` and `tell` bring it up to date."""

    def __init__(self, steps: Sequence[str]) -> None:
        self.rows = [Row(ORIGINAL), *map(Row, steps), Row(SHIP)]
        self.text = ""
        self.share: float | None = None

    def begin(self, entry: int, name: str) -> None:
        """Work at an entry of the recipe starts, again if need be; original and ship have entry -1."""
        for row in self.rows:
            if row.state == RUNNING:
                row.state = row.record.outcome if row.record else TO_COME
        row = self._row(entry, name)
        row.state, row.begun = RUNNING, time.perf_counter()
        self.tell("", None)

    def decide(self, record: Record) -> None:
        """What became of a step, by its record."""
        row = self._row(record.entry, record.step)
        row.state, row.record = record.outcome, record
        self.tell("", None)

    def tell(self, text: str, share: float | None) -> None:
        """What is being done, and how much of it (0 to 1) is done."""
        self.text, self.share = text, share

    @property
    def best(self) -> tuple[str, Measurement, float] | None:
        """The fastest of what is accepted now: its step, its figures, its speed-up over the first timed."""
        decided = [row.record for row in self.rows if row.record is not None]
        first = next((one.before for one in decided if one.before and one.before.latency_ms), None)
        kept = [
            (one.measurement.latency_ms.p50, one.step, one.measurement)
            for one in decided
            if one.outcome == "accepted" and one.measurement and one.measurement.latency_ms
        ]
        if first is None or first.latency_ms is None or not kept:
            return None
        p50, step, figures = min(kept, key=lambda one: one[0])
        return step, figures, first.latency_ms.p50 / p50

    def _row(self, entry: int, name: str) -> Row:
        if entry >= 0:
            return self.rows[entry + 1]
        return self.rows[0 if name == ORIGINAL else -1]
