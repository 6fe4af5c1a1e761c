"""Models, files and bundles against each other: latency and throughput, memory, size, start-up, accuracy."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar

from slimcv import runtimes
from slimcv.errors import SlimcvError
from slimcv.measure import environment, latency, size, throughput
from slimcv.measure.latency import Contender, ContenderFailed, Ratio, Timing
from slimcv.measure.threads import available
from slimcv.measure.throughput import Throughput
from slimcv.measure.variant import Answers, answers
from slimcv.results import Paired
from slimcv.targets import Target, targets

if TYPE_CHECKING:
    from slimcv.data import Split

__all__ = ["Comparison", "Row", "Target", "compare", "side_by_side", "targets"]

_Found = TypeVar("_Found")

SAMPLES = 100
"""Calls timed of each: enough for a 99th percentile."""

QUICK_SAMPLES = 20


@dataclass(frozen=True)
class Row:
    """A target with so many threads and pictures at once; None is "not measured", `problem` says why.
    Where only top-1 was not, though there are pictures, `accuracy_problem` says that.

    Milliseconds are those of one call with `batch` pictures, `spread` theirs, `ratio` that of latencies.
    `streams` predictions ran side by side for `throughput_ips`, images a second, with a spread and a ratio of
    its own where they were measured for it. `model_bytes` is the peak memory over the runtime's own. `paired`
    sets top-1 against the first target's, picture by picture.
    """

    name: str
    runtime: str
    precision: str | None
    threads: int
    batch: int
    streams: int
    size_bytes: int | None = None
    p50_ms: float | None = None
    p90_ms: float | None = None
    p99_ms: float | None = None
    samples: int = 0
    spread: float | None = None
    ratio: Ratio | None = None
    throughput_ips: float | None = None
    throughput_spread: float | None = None
    throughput_ratio: Ratio | None = None
    load_seconds: float | None = None
    first_call_ms: float | None = None
    model_bytes: int | None = None
    top1: float | None = None
    paired: Paired | None = None
    problem: str | None = None
    accuracy_problem: str | None = None


@dataclass(frozen=True)
class Comparison:
    """What `bench` found: rows by threads and batch, targets in the order they were given."""

    mode: str
    rows: tuple[Row, ...]

    def as_json(self) -> dict[str, Any]:
        """The result of `slimcv bench --format json`."""
        return {
            "schema_version": 1,
            "mode": self.mode,
            "rows": [asdict(row) for row in self.rows],
            "environment": environment.describe().as_json(),
        }


def side_by_side(threads: Sequence[int], *, allowed: int) -> dict[int, int]:
    """How many predictions, each with so many threads, keep the `allowed` cores busy."""
    return {count: max(1, allowed // count) for count in threads}


def compare(
    found: Sequence[Target],
    *,
    threads: Sequence[int],
    batches: Sequence[int],
    streams: Mapping[int, int] | None = None,
    split: Split | None = None,
    quick: bool = False,
    seed: int = 0,
) -> Iterator[Row]:
    """Time all targets in turns for each number of threads and pictures; a row each as it is known.

    Without `streams` one prediction runs at a time (latency). With it so many processes, for each number of
    threads, predict side by side and their images a second count; the milliseconds are still those of one
    alone. A target that has a problem, that a runtime refuses, or that dies, is a row with its problem.
    """
    able = [target for target in found if target.problem is None]
    said, silent = _answers(able, split, seed=seed)
    for count in threads:
        together = 1 if streams is None else streams[count]
        for batch in batches:
            timed, problems = _timings(able, threads=count, batch=batch, quick=quick, seed=seed)
            problems |= {target.name: target.problem for target in found if target.problem is not None}
            rates: Mapping[str, Throughput] = {}
            if streams is not None:
                running = [target for target in able if target.name in timed]
                rates, more = _rates(
                    running, streams=together, threads=count, batch=batch, quick=quick, seed=seed
                )
                problems |= more
            first = next((target.name for target in found if target.name not in problems), "")
            for target in found:
                row = Row(target.name, target.runtime, None, count, batch, together)
                if target.name in problems:
                    yield replace(row, problem=problems[target.name])
                    continue
                row = _with_times(row, timed[target.name], timed[first])
                if streams is not None:
                    row = _with_rate(row, rates[target.name], rates[first])
                answers = said.get(target.name)
                yield replace(
                    row,
                    size_bytes=target.packed_bytes or size.artifact_bytes(target.path),
                    top1=answers.top1 if answers else None,
                    paired=_against(said.get(first), answers),
                    accuracy_problem=silent.get(target.name),
                )


def _against(reference: Answers | None, said: Answers | None) -> Paired | None:
    """Top-1 against that of the first target, None for that one itself and where it did not answer."""
    if reference is None or said is None or said is reference:
        return None
    return said.against(reference)


def _with_times(row: Row, timing: Timing, first: Timing) -> Row:
    return replace(
        row,
        precision=timing.precision,
        p50_ms=timing.latency.p50,
        p90_ms=timing.latency.p90,
        p99_ms=timing.latency.p99,
        samples=timing.latency.n,
        spread=timing.latency.spread,
        ratio=latency.ratio(first, timing),
        throughput_ips=1e3 * row.batch / timing.latency.p50,
        load_seconds=timing.load_seconds,
        first_call_ms=timing.first_call_ms,
        model_bytes=timing.peak_rss_bytes,
    )


def _with_rate(row: Row, rate: Throughput, first: Throughput) -> Row:
    return replace(
        row,
        throughput_ips=rate.ips,
        throughput_spread=rate.spread,
        throughput_ratio=throughput.ratio(first, rate),
    )


def _timings(
    found: Sequence[Target], *, threads: int, batch: int, quick: bool, seed: int
) -> tuple[Mapping[str, Timing], dict[str, str]]:
    """What could be timed, and why the rest could not."""
    samples = QUICK_SAMPLES if quick else SAMPLES
    return _running(
        found,
        threads,
        lambda left: latency.interleaved(left, samples=samples, batch=batch, memory=not quick, seed=seed),
    )


def _rates(
    found: Sequence[Target], *, streams: int, threads: int, batch: int, quick: bool, seed: int
) -> tuple[Mapping[str, Throughput], dict[str, str]]:
    """Images a second of so many processes side by side, and why the rest have none."""
    return _running(
        found,
        threads,
        lambda left: throughput.side_by_side(left, streams=streams, batch=batch, quick=quick, seed=seed),
    )


def _running(
    found: Sequence[Target], threads: int, measure: Callable[[Mapping[str, Contender]], Mapping[str, _Found]]
) -> tuple[Mapping[str, _Found], dict[str, str]]:
    """What `measure` finds of those that run, and why the others do not."""
    contenders = {each.name: Contender(each.path, each.runtime, threads, each.input) for each in found}
    problems: dict[str, str] = {}
    while contenders:
        try:
            return measure(contenders), problems
        except ContenderFailed as error:
            problems[error.contender] = error.message
            del contenders[error.contender]
    return {}, problems


def _answers(
    found: Sequence[Target], split: Split | None, *, seed: int
) -> tuple[dict[str, Answers], dict[str, str]]:
    """What those say to the pictures that can be asked about them, and why the others cannot."""
    said: dict[str, Answers] = {}
    silent: dict[str, str] = {}
    for target in found if split is not None else ():
        try:
            said[target.name] = answers(
                target.path,
                target.runtime,
                target.input,
                split=split,
                threads=available(),
                seed=seed,
                batch=_batch(target),
            )
        except SlimcvError as error:
            silent[target.name] = error.message
    return said, silent


def _batch(target: Target) -> int | None:
    """How many pictures its file takes at once, None where that is free."""
    return runtimes.fed(target.path, target.runtime)[0][0] if target.runtime in runtimes.EXACT else None
