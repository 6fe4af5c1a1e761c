"""The table of a bake-off: every candidate, timed or not, and what became of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from slimcv.bakeoff.names import runtime_of
from slimcv.measure.latency import Timing
from slimcv.rounding import digits, significant


@dataclass(frozen=True)
class Row:
    """One way of running the variant: the median call with one picture, its spread, and what became of it."""

    name: str
    runtime: str
    precision: str | None
    p50_ms: float | None
    outcome: str
    spread: float | None = None


def rows(
    heat: Mapping[str, Timing],
    final: Mapping[str, Timing],
    *,
    best: str,
    problems: Mapping[str, str],
    refused: Mapping[str, str],
) -> Iterator[Row]:
    """The fastest first; `heat` are all timings, `final` those of the final measurement, `best` is served.

    `problems` say why candidates are out of the race, `refused` why others were not taken whatever their
    speed.
    """
    for name in sorted(heat, key=lambda name: heat[name].latency.p50):
        timing = final.get(name, heat[name])
        if name == best:
            outcome = "served"
        elif name in problems:
            outcome = problems[name]
        else:
            # Compared with the winner in the same run.
            outcome = slower(timing, (final if name in final else heat)[best], than=best)
            if name in refused:
                outcome = f"{refused[name]} ({outcome})"
        figures = timing.latency
        yield Row(name, runtime_of(name), timing.precision, figures.p50, outcome, figures.spread)
    for name in sorted(problems.keys() - heat.keys()):
        yield Row(name, runtime_of(name), None, None, problems[name])


def slower(timing: Timing, winner: Timing, *, than: str) -> str:
    """How many times the time of another one that it takes, in words."""
    meaningful = digits(timing.latency.spread, winner.latency.spread)
    return f"{significant(timing.latency.p50 / winner.latency.p50, meaningful)}× the time of {than}"
