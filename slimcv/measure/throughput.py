"""Images a second of predictions side by side: several processes for each contender, measured in turns."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from slimcv.measure import latency
from slimcv.measure.latency import Ratio
from slimcv.measure.process import Contender, WorkerProcess

ROUNDS, QUICK_ROUNDS = 10, 5
"""How often each contender has its turn."""

_ROUND_MS, _QUICK_ROUND_MS = 500.0, 200.0
"""What a turn takes at least, so that starting and ending it counts for little."""

_WARM_UP_SECONDS = 0.3


@dataclass(frozen=True)
class Throughput:
    """Images a second of `streams` processes together, in each round."""

    streams: int
    rounds_ips: tuple[float, ...]

    @property
    def ips(self) -> float:
        """The median of the rounds."""
        return float(np.median(self.rounds_ips))

    @property
    def spread(self) -> float:
        """Half the interquartile range over the median."""
        lower, middle, upper = np.percentile(self.rounds_ips, [25, 50, 75])
        return float((upper - lower) / 2 / middle)


def side_by_side(
    contenders: Mapping[str, Contender], *, streams: int, batch: int = 1, quick: bool = False, seed: int = 0
) -> dict[str, Throughput]:
    """So many processes of each contender predict at the same time, one contender after the other.

    All are loaded and warmed up first; then they take turns, a round forwards, a round backwards, so that
    drift of the machine meets all alike. While one has its turn the processes of the others wait, and keep
    their memory. Raises ContenderFailed.
    """
    with contextlib.ExitStack() as stack:
        crews = {
            name: _Crew(
                [stack.enter_context(WorkerProcess(name, contender)) for _ in range(streams)], batch=batch
            )
            for name, contender in contenders.items()
        }
        for crew in crews.values():
            crew.load(seed=seed, round_ms=_QUICK_ROUND_MS if quick else _ROUND_MS)
        for turn in range(QUICK_ROUNDS if quick else ROUNDS):
            for crew in list(crews.values())[:: -1 if turn % 2 else 1]:
                crew.take_turn()
        return {name: Throughput(streams, tuple(crew.rounds_ips)) for name, crew in crews.items()}


def ratio(before: Throughput, after: Throughput, *, seed: int = 0) -> Ratio:
    """How many times the images a second, with its 95 % interval over rounds (see latency.ratio)."""
    seconds = [1.0 / np.asarray(each.rounds_ips)[:, np.newaxis] for each in (before, after)]
    return latency.ratio_of_medians(*seconds, seed=seed)


class _Crew:
    """The processes of one contender."""

    def __init__(self, workers: Sequence[WorkerProcess], *, batch: int) -> None:
        self.rounds_ips: list[float] = []
        self._workers = workers
        self._batch = batch
        self._calls = 1

    def load(self, *, seed: int, round_ms: float) -> None:
        """Load and warm up all at once, as they will run; how many calls make a round follows from that."""
        for worker in self._workers:
            worker.post_start()
            worker.post_load(seed=seed)
            worker.post("warm", batch=self._batch, calls=3, seconds=_WARM_UP_SECONDS)
        slowest = max(float(worker.answers()[-1]["call_ms"]) for worker in self._workers)
        self._calls = max(1, round(round_ms / slowest))

    def take_turn(self) -> None:
        """All predict at the same time; the round ends with the last of them."""
        begun = time.perf_counter()
        for worker in self._workers:
            worker.post("time", batch=self._batch, calls=self._calls, discard=0)
        for worker in self._workers:
            worker.answer()
        images = len(self._workers) * self._calls * self._batch
        self.rounds_ips.append(images / (time.perf_counter() - begun))
