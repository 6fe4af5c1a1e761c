"""Whole calls in this process: what the allocator alone costs an eager model."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median

import torch
from torch import Tensor, fx

from slimcv.measure import allocator
from slimcv.profile.timing import call_ms, threads_set

_WARM_UPS, _CALLS, _FEWEST = 3, 20, 5
_SECONDS = 0.8
"""What the calls may take together, if the fewest take no longer."""


@dataclass(frozen=True)
class Whole:
    """Median milliseconds of a call, with the allocator as it is and then, in the same process, tuned."""

    default_ms: float
    tuned_ms: float


def compare_allocators(
    model: fx.GraphModule, picture: Tensor, *, default_ms: float, threads: int
) -> Whole | None:
    """Tune the allocator, which cannot be undone, and time whole eager calls on one picture.

    `default_ms` is what a call took before anything else was measured: later on a heap with room from what
    has been freed hides what the allocator costs. None, told in the log, where it cannot be tuned.
    """
    if not allocator.tune_or_tell():
        return None
    with threads_set(threads), torch.inference_mode():
        warm = [call_ms(model, picture) for _ in range(_WARM_UPS)]
        calls = max(_FEWEST, min(_CALLS, int(1000 * _SECONDS / warm[-1])))
        return Whole(default_ms, median(call_ms(model, picture) for _ in range(calls)))
