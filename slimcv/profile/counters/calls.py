"""Calls of a prepared model: warmed up, timed, and as many as there is time for."""

from __future__ import annotations

from collections.abc import Callable
from statistics import median
from time import perf_counter

from slimcv.profile.counters import FEWEST, MOST

_WARM_UPS = 3


def timed(call: Callable[[], object], *, seconds: float) -> tuple[float, int]:
    """Median milliseconds of a call after a warm-up, and how many calls there were in so many seconds."""
    for _ in range(_WARM_UPS):
        call()
    times: list[float] = []
    begun = perf_counter()
    while len(times) < FEWEST or (len(times) < MOST and perf_counter() - begun < seconds):
        started = perf_counter()
        call()
        times.append(1000 * (perf_counter() - started))
    return median(times), len(times)
