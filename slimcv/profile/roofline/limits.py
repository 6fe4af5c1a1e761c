"""What this machine can do at most: products a second in each precision, and bytes a second from memory.

A probe of a few seconds, kept in the user's cache by host, CPU, threads and version of torch.
"""

from __future__ import annotations

import hashlib
import json
import logging
import platform
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from time import perf_counter

import torch
from torch import Tensor

from slimcv.data.folder import default_folder
from slimcv.measure import environment
from slimcv.profile.timing import threads_set
from slimcv.writing import write_text

log = logging.getLogger("slimcv")

MOST_SECONDS = 10.0
"""However slow the machine, no reading is begun later, but for the first of a part."""

PARTS, SECONDS = 4, 0.75
"""What each of the parts may take, if three readings take no longer."""

_AGAIN = 0.1
"""The same where the limits are known already."""

_SIDE = 1024
"""A product of two square matrices of that side has 2 GFLOP."""
_SMALL = 256
_EMULATED = 20.0
"""A small product that is so many times slower than in fp32 is emulated; a large one would take minutes."""
_COPIED_BYTES = 64 * 2**20
"""Copied to measure the memory: more than most last-level caches hold, twice."""
_VERSION = 1


@dataclass(frozen=True)
class Limits:
    """Peaks of so many threads, in 10^9 a second: operations, two for a MAC, and bytes read or written.

    None is a precision that PyTorch has no fast kernel for here.
    """

    threads: int
    fp32_gflops: float
    bf16_gflops: float | None
    int8_gflops: float | None
    memory_gbytes: float
    seconds: float

    def gflops(self, precision: str) -> float:
        """The peak for a precision; that of fp32 where there is no other."""
        known = {"bf16": self.bf16_gflops, "int8": self.int8_gflops}
        return known.get(precision) or self.fp32_gflops


@dataclass(frozen=True)
class Clock:
    """How long a part may read, and when all must end (a `perf_counter` reading)."""

    seconds: float
    deadline: float

    def shortest(self) -> Clock:
        """For as few readings as there may be."""
        return replace(self, seconds=0.0)


def measured(*, threads: int, folder: Path | None = None) -> Limits:
    """The limits from the cache in `folder` (the user's own by default), or from a probe made now.

    What is kept is looked at again for half a second, and grows where more is reached: the first probe may
    have met a busy machine.
    """
    place = (folder or default_folder()) / "limits" / f"{_key(threads)}.json"
    kept = _read(place)
    if kept is None:
        log.info("measuring what this machine can do at most, once: some seconds")
        found = probe(threads=threads)
    else:
        found = _at_most(kept, probe(threads=threads, seconds=_AGAIN))
        if found == kept:
            return kept
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        write_text(place, json.dumps(asdict(found)))
    except OSError:
        log.info("the machine's limits could not be kept in %s", place.parent)
    return found


def probe(*, threads: int, seconds: float | None = None) -> Limits:
    """Measure now, each of four parts for so many seconds (`SECONDS` by default).

    The best of several readings, because a limit is what is reached when nothing disturbs.
    """
    begun = perf_counter()
    clock = Clock(SECONDS if seconds is None else seconds, begun + MOST_SECONDS)
    with threads_set(threads), torch.inference_mode():
        fp32 = _product(torch.float32, clock)
        found = Limits(
            threads=threads,
            fp32_gflops=fp32,
            bf16_gflops=_bf16(fp32, clock),
            int8_gflops=_int8(fp32, clock),
            memory_gbytes=_copy(clock),
            seconds=0.0,
        )
    return replace(found, seconds=perf_counter() - begun)


def _product(dtype: torch.dtype, clock: Clock, *, side: int = _SIDE) -> float:
    left = torch.ones(side, side, dtype=dtype)
    right, product = left.clone(), left.clone()
    return _rate(2 * side**3, lambda: torch.mm(left, right, out=product), clock)


def _bf16(fp32: float, clock: Clock) -> float | None:
    if _EMULATED * _product(torch.bfloat16, clock.shortest(), side=_SMALL) < fp32:
        return None
    return _product(torch.bfloat16, clock)


def _int8(fp32: float, clock: Clock) -> float | None:
    """A linear layer of oneDNN on 8-bit activations and weights, as Inductor calls it."""
    if _EMULATED * _linear(_SMALL, clock.shortest()) < fp32:
        return None
    return _linear(_SIDE, clock)


def _linear(side: int, clock: Clock) -> float:
    """0 where this build of torch has no such layer."""
    pixels = torch.ones(side, side, dtype=torch.uint8)
    scales, zeros = torch.ones(side), torch.zeros(side, dtype=torch.int32)
    try:
        weight = torch.ops.onednn.qlinear_prepack(torch.ones(side, side, dtype=torch.int8).t(), None)

        def call() -> Tensor:
            product: Tensor = torch.ops.onednn.qlinear_pointwise(
                pixels, 1.0, 0, weight, scales, zeros, None, 1.0, 0, torch.float32, "none", [], ""
            )
            return product

        return _rate(2 * side**3, call, clock)
    except (RuntimeError, AttributeError, NotImplementedError):
        return 0.0


def _copy(clock: Clock) -> float:
    source = torch.zeros(_COPIED_BYTES // 4)
    target = torch.ones_like(source)
    return _rate(2 * _COPIED_BYTES, lambda: target.copy_(source), clock)


def _rate(work: int, call: Callable[[], object], clock: Clock) -> float:
    """The most of `work` done in a second, in 10^9."""
    call()
    best = float("inf")
    begun = perf_counter()
    for reading in range(1000):
        started = perf_counter()
        call()
        ended = perf_counter()
        best = min(best, ended - started)
        if ended >= clock.deadline or (reading >= 2 and ended - begun >= clock.seconds):
            break
    return work / best / 1e9


def _at_most(first: Limits, second: Limits) -> Limits:
    """The larger of each, `seconds` of the first."""
    return replace(
        first,
        fp32_gflops=max(first.fp32_gflops, second.fp32_gflops),
        bf16_gflops=max(first.bf16_gflops or 0.0, second.bf16_gflops or 0.0) or None,
        int8_gflops=max(first.int8_gflops or 0.0, second.int8_gflops or 0.0) or None,
        memory_gbytes=max(first.memory_gbytes, second.memory_gbytes),
    )


def _key(threads: int) -> str:
    isa = ",".join(environment.isa())
    known = (_VERSION, platform.node(), environment.cpu_model(), isa, torch.__version__, threads)
    return hashlib.sha256(repr(known).encode()).hexdigest()[:16]


def _read(place: Path) -> Limits | None:
    """What was kept; None where there is nothing, or nothing that can be read."""
    try:
        values = json.loads(place.read_text("utf-8"))
        kept = {field.name: values[field.name] for field in fields(Limits)}
    except (OSError, ValueError, KeyError, TypeError):
        return None
    optional = ("bf16_gflops", "int8_gflops")
    whole = all(_positive(value) or (value is None and name in optional) for name, value in kept.items())
    return Limits(**kept) if whole else None


def _positive(value: object) -> bool:
    return isinstance(value, int | float) and value > 0
