"""Calls of a prepared model: warmed up, timed, and as many as there is time for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import quantiles
from time import perf_counter

from slimcv.profile.counters import FEWEST, MOST

_WARM_UPS = 3


def timed(call: Callable[[], object], *, seconds: float) -> tuple[float, int]:
    """Undisturbed milliseconds of a call after a warm-up, and how many there were in so many seconds."""
    for _ in range(_WARM_UPS):
        call()
    times: list[float] = []
    begun = perf_counter()
    while len(times) < FEWEST or (len(times) < MOST and perf_counter() - begun < seconds):
        started = perf_counter()
        call()
        times.append(1000 * (perf_counter() - started))
    return undisturbed(times), len(times)


def undisturbed(times: Sequence[float]) -> float:
    """The lower quartile: what a call takes while nothing else wants the CPU, which only ever adds to it."""
    return quantiles(times, n=4)[0] if len(times) > 1 else times[0]
