"""Whole calls in a process of their own: what the allocator alone costs an eager model."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from slimcv import runtimes
from slimcv.measure.process import Contender, WorkerProcess
from slimcv.step import Variant

_CALLS = 10
_SECONDS = 0.8
"""What each allocator's calls may take together, if three of them take no longer."""


@dataclass(frozen=True)
class Whole:
    """Median milliseconds of a call, with the allocator as it is and then, in the same process, tuned."""

    default_ms: float
    tuned_ms: float


def compare_allocators(variant: Variant, *, threads: int) -> Whole:
    """Time whole eager calls on one picture, first with the default and then with the tuned allocator.

    One process does both, because a large network takes seconds to load.
    """
    with tempfile.TemporaryDirectory(prefix="slimcv-") as folder:
        path = Path(folder) / "model.pt2"
        contender = Contender(path, "eager", threads, variant.input, "default")
        with WorkerProcess("the model in PyTorch", contender) as worker:
            worker.post_start()
            runtimes.write(variant, "eager", path.parent, name=path.stem)
            worker.post_load(seed=0)
            worker.answers()
            default_ms = _call_ms(worker)
            worker.ask("start", runtime="eager", threads=threads, allocator="tuned")
            return Whole(default_ms, _call_ms(worker))


def _call_ms(worker: WorkerProcess) -> float:
    warm = worker.ask("warm", batch=1, calls=3, seconds=0.2)
    calls = max(3, min(_CALLS, int(1000 * _SECONDS / warm["call_ms"])))
    return float(median(worker.ask("time", batch=1, calls=calls, discard=0)["ms"]))
