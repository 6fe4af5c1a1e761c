"""How long a call takes: contenders in processes of their own, measured in turns so drift meets all alike."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from slimcv.measure.memory import Memory
from slimcv.measure.process import PATIENCE_SECONDS, Contender, ContenderFailed, WorkerProcess
from slimcv.measure.threads import available
from slimcv.results import Latency

__all__ = [
    "Contender", "ContenderFailed", "Ratio", "Timing", "faster", "interleaved", "ratio", "ratio_of_medians",
    "summarise",
]  # fmt: skip

_ROUNDS = 10
_FEWEST_CALLS = 10
_SLOW_CALL_MS = 100.0
_SLOW_BATCH_MS = 500.0
_CACHE_MATTERS_BELOW_MS = 20.0
"""After another contender's turn the first call finds cold caches, which shows in calls shorter than this."""

_WARM_UP_SECONDS = 0.3
_RESAMPLES = 1000


@dataclass(frozen=True)
class Timing:
    """One contender, measured; memory, throughput and outputs are None where they were not asked for.

    `outputs` (n, classes) are those for the pictures asked about, `rounds_ms` holds each round's calls,
    `precision` is what the runtime says it computes in.
    """

    contender: Contender
    latency: Latency
    batch: int
    rounds_ms: tuple[tuple[float, ...], ...]
    load_seconds: float
    first_call_ms: float
    precision: str
    memory: Memory | None = None
    throughput_ips: float | None = None
    outputs: NDArray[np.float32] | None = None

    @property
    def samples_ms(self) -> tuple[float, ...]:
        """Every timed call, in order."""
        return tuple(chain.from_iterable(self.rounds_ms))

    @property
    def peak_rss_bytes(self) -> int | None:
        """Peak memory while predicting, on top of the runtime's own (`Memory.model_bytes`)."""
        return None if self.memory is None else self.memory.model_bytes


@dataclass(frozen=True)
class Ratio:
    """How many times faster one contender is than another, with the bounds of an interval."""

    value: float
    low: float
    high: float


def interleaved(
    contenders: Mapping[str, Contender],
    *,
    samples: int = 50,
    batch: int = 1,
    memory: bool = False,
    throughput_batch: int | None = None,
    throughput_of: Collection[str] | None = None,
    asked: Path | None = None,
    limit_seconds: float = 30.0,
    patience_seconds: float = PATIENCE_SECONDS,
    seed: int = 0,
) -> dict[str, Timing]:
    """Time contenders against each other, on random normalised pictures.

    All are loaded and warmed up; then they take turns, a round forwards, a round backwards, until each has
    `samples` timed calls (10 if a call takes more than 100 ms) or has been timed for `limit_seconds`, in
    three rounds at least. `memory` measures peak memory too, with the default allocator, for which
    contenders with another one get one more process. `throughput_batch` measures images a second at that
    batch size, of the contenders named in `throughput_of` or of all. `asked` is an `.npy` file of uint8
    pictures (n, height, width, channels), which all answer one by one. Raises ContenderFailed, a SlimcvError
    that names the contender, where one cannot be loaded, its process dies, or one answer takes more than
    `patience_seconds`.
    """
    with contextlib.ExitStack() as stack:
        seats = [
            _Seat(stack.enter_context(WorkerProcess(name, c, patience_seconds=patience_seconds)))
            for name, c in contenders.items()
        ]
        # What differs in the allocator alone has the same memory, measured once and with the default one.
        peaks: dict[Contender, Memory] = {}
        for seat in seats:
            seat.worker.post_start()
            if memory and seat.worker.contender.allocator == "default":
                seat.worker.post("baseline")
        for seat in seats:
            seat.load(batch=batch, seed=seed)
            if memory and seat.worker.contender.allocator == "default":
                peaks[seat.worker.contender] = seat.memory(batch)
            if asked is not None:
                seat.ask(asked)
        for turn in range(_rounds(samples)):
            for seat in seats if turn % 2 == 0 else reversed(seats):
                seat.take_turn(batch, samples=samples, limit_seconds=limit_seconds)
        timings = {seat.worker.name: seat.timing(batch) for seat in seats}
        if throughput_batch is not None:
            wanted = timings.keys() if throughput_of is None else throughput_of
            ips = _throughput([seat for seat in seats if seat.worker.name in wanted], throughput_batch)
            timings |= {name: replace(timings[name], throughput_ips=value) for name, value in ips.items()}
    if memory:
        alike = {name: replace(contenders[name], allocator="default") for name in timings}
        left = {contender: name for name, contender in alike.items() if contender not in peaks}

        def peak(contender: Contender) -> Memory:
            name = left[contender]
            return peak_memory(name, contender, batch=batch, patience_seconds=patience_seconds, seed=seed)

        # Nothing is timed any more, so that one process need not wait for another.
        with ThreadPoolExecutor(available()) as pool:
            peaks |= dict(zip(left, pool.map(peak, left), strict=True))
        timings = {name: replace(timing, memory=peaks[alike[name]]) for name, timing in timings.items()}
    return timings


def peak_memory(
    name: str,
    contender: Contender,
    *,
    batch: int = 1,
    patience_seconds: float = PATIENCE_SECONDS,
    seed: int = 0,
) -> Memory:
    """A contender's memory in a process of its own, with the default allocator. Raises ContenderFailed."""
    contender = replace(contender, allocator="default")
    with WorkerProcess(name, contender, patience_seconds=patience_seconds) as worker:
        seat = _Seat(worker)
        seat.worker.post_start()
        worker.post("baseline")
        seat.load(batch=batch, seed=seed, warm_up_seconds=0.0)
        return seat.memory(batch)


def ratio(before: Timing, after: Timing, *, seed: int = 0, confidence: float = 0.95) -> Ratio:
    """The ratio of median latencies, above 1 where `after` is faster (see `ratio_of_medians`)."""
    rounds = _matrix(before.rounds_ms), _matrix(after.rounds_ms)
    return ratio_of_medians(*rounds, seed=seed, confidence=confidence)


def ratio_of_medians(
    before: NDArray[np.float64], after: NDArray[np.float64], *, seed: int = 0, confidence: float = 0.95
) -> Ratio:
    """The ratio of the medians of times (rounds, calls).

    The interval is a bootstrap over whole rounds (Künsch 1989), the same rounds for both, because
    neighbouring calls resemble each other and drift that meets both cancels.
    """
    random = np.random.default_rng(seed)
    picks = random.integers(0, len(before), (_RESAMPLES, len(before)))
    paired = picks if len(before) == len(after) else random.integers(0, len(after), (_RESAMPLES, len(after)))
    medians = [
        np.median(rounds[chosen].reshape(_RESAMPLES, -1), axis=1)
        for rounds, chosen in ((before, picks), (after, paired))
    ]
    low, high = np.quantile(medians[0] / medians[1], [(1 - confidence) / 2, (1 + confidence) / 2])
    return Ratio(float(np.median(before) / np.median(after)), float(low), float(high))


def faster(before: Timing, after: Timing) -> bool:
    """Whether `after` is faster by more than the measured spread: the whole 95 % interval lies above 1."""
    return ratio(before, after).low > 1.0


def summarise(samples_ms: Sequence[float]) -> Latency:
    """Median and percentiles; below 100 samples p99 would be the maximum by another name."""
    quartile, p50, upper, p90, p99 = (float(v) for v in np.percentile(samples_ms, [25, 50, 75, 90, 99]))
    n = len(samples_ms)
    return Latency(p50=p50, p90=p90, p99=p99 if n >= 100 else None, n=n, spread=(upper - quartile) / 2 / p50)


@dataclass
class _Seat:
    """A worker and what has been measured of it so far."""

    worker: WorkerProcess
    call_ms: float = 0.0
    load_seconds: float = 0.0
    first_call_ms: float = 0.0
    precision: str = ""
    outputs: NDArray[np.float32] | None = None
    rounds_ms: list[tuple[float, ...]] = field(default_factory=list)
    timed_seconds: float = 0.0

    def load(self, *, batch: int, seed: int, warm_up_seconds: float = _WARM_UP_SECONDS) -> None:
        """Load the model and call it until it is warm; one contender at a time, because this is timed too."""
        self.worker.answers()
        self.worker.post_load(seed=seed)
        loaded = self.worker.answer()
        warm = self.worker.ask("warm", batch=batch, calls=3, seconds=warm_up_seconds)
        self.load_seconds = loaded["load_seconds"]
        self.first_call_ms, self.call_ms, self.precision = (
            warm["first_call_ms"],
            warm["call_ms"],
            warm["precision"],
        )

    def memory(self, batch: int) -> Memory:
        return Memory(**self.worker.ask("memory", batch=batch, calls=3))

    def ask(self, pictures: Path) -> None:
        """Have the worker answer about pictures."""
        spec = self.worker.contender.input
        rows = self.worker.ask("outputs", path=str(pictures), mean=list(spec.mean), std=list(spec.std))[
            "rows"
        ]
        self.outputs = np.asarray(rows, np.float32)

    def take_turn(self, batch: int, *, samples: int, limit_seconds: float) -> None:
        """One round of calls, unless there are enough by now or their time is up."""
        wanted = samples if self.call_ms <= _SLOW_CALL_MS else min(samples, _FEWEST_CALLS)
        calls = math.ceil(wanted / _rounds(samples))
        taken = len(self.rounds_ms)
        if taken * calls >= wanted or (taken >= 3 and self.timed_seconds > limit_seconds):
            return
        start = time.perf_counter()
        discard = 1 if self.call_ms < _CACHE_MATTERS_BELOW_MS else 0
        self.rounds_ms.append(tuple(self.worker.ask("time", batch=batch, calls=calls, discard=discard)["ms"]))
        self.timed_seconds += time.perf_counter() - start

    def timing(self, batch: int) -> Timing:
        """What was measured, as a value."""
        return Timing(
            contender=self.worker.contender,
            latency=summarise(list(chain.from_iterable(self.rounds_ms))),
            batch=batch,
            rounds_ms=tuple(self.rounds_ms),
            load_seconds=self.load_seconds,
            first_call_ms=self.first_call_ms,
            precision=self.precision,
            outputs=self.outputs,
        )


def _rounds(samples: int) -> int:
    return max(1, min(2 * _ROUNDS if samples > 100 else _ROUNDS, samples))


def _throughput(seats: Sequence[_Seat], batch: int) -> dict[str, float]:
    """Images a second after one call to warm up, each contender in turn.

    The median of three calls, or one call where it takes more than half a second: there it hardly varies.
    """
    found = {}
    for seat in seats:
        warm = seat.worker.ask("warm", batch=batch, calls=1, seconds=0.0)
        calls = 3 if warm["call_ms"] <= _SLOW_BATCH_MS else 1
        times = seat.worker.ask("time", batch=batch, calls=calls, discard=0)["ms"]
        found[seat.worker.name] = batch / (1e-3 * float(np.median(times)))
    return found


def _matrix(rounds_ms: Sequence[Sequence[float]]) -> np.ndarray:
    """Rounds as rows; every round of a contender has the same number of calls."""
    return np.asarray(rounds_ms, dtype=np.float64)
