"""Ways of doing the same thing, timed in turns in this process, so that drift meets all alike."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import median, quantiles
from time import perf_counter

FEWEST_ROUNDS = 3
MOST_ROUNDS = 50


@dataclass(frozen=True)
class Way:
    """One contender: `call` is timed, `prepare` before each call is not."""

    call: Callable[[], object]
    prepare: Callable[[], object] | None = None


@dataclass(frozen=True)
class Contest:
    """Milliseconds of each way, in the order of the rounds."""

    rounds_ms: Mapping[str, tuple[float, ...]]

    def ms(self, name: str) -> float:
        """The median over the rounds."""
        return median(self.rounds_ms[name])

    def gain(self, before: str, after: str) -> float:
        """How many times faster `after` is, the median over pairs of one round."""
        return median(self._ratios(before, after))

    def faster(self, before: str, after: str, *, least: float) -> bool:
        """Whether `after` is at least `least` times faster in three rounds of four."""
        ratios = self._ratios(before, after)
        return (quantiles(ratios, n=4)[0] if len(ratios) > 1 else ratios[0]) >= least

    def _ratios(self, before: str, after: str) -> list[float]:
        pairs = zip(self.rounds_ms[before], self.rounds_ms[after], strict=True)
        return [first / second for first, second in pairs]


def contest(ways: Mapping[str, Way], *, seconds: float) -> Contest:
    """Warm every way up with one call, then let them take turns for `seconds`, three rounds at least.

    A round forwards follows a round backwards, so that none is always the one after another.
    """
    rounds: dict[str, list[float]] = {name: [] for name in ways}
    for way in ways.values():
        _timed(way)
    begun = perf_counter()
    for turn in range(MOST_ROUNDS):
        if turn >= FEWEST_ROUNDS and perf_counter() - begun >= seconds:
            break
        for name in ways if turn % 2 == 0 else reversed(list(ways)):
            rounds[name].append(_timed(ways[name]))
    return Contest({name: tuple(times) for name, times in rounds.items()})


def _timed(way: Way) -> float:
    if way.prepare is not None:
        way.prepare()
    begun = perf_counter()
    way.call()
    return 1000 * (perf_counter() - begun)
