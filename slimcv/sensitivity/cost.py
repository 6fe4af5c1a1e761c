"""What a layer costs: its bytes in a packed file, and its milliseconds measured against another one's."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from statistics import median
from time import perf_counter
from typing import Any

import torch
from torch import Tensor

from slimcv.packed import choosing
from slimcv.profile.timing import threads_set

_SECONDS = 0.1
_FEWEST, _MOST = 5, 50
_WARM_UPS = 2


def packed_bytes(tensors: Iterable[Tensor]) -> int:
    """Bytes that a packed file spends on these tensors, each alone (an estimate of the entropy coder)."""
    return round(sum(_packed_bytes(tensor) for tensor in tensors))


def _packed_bytes(tensor: Tensor) -> float:
    values = tensor.detach().contiguous().numpy()
    elements = choosing.elements_of(memoryview(values.tobytes()), values.itemsize)
    rows = len(values) if values.ndim else 1
    return choosing.estimated_bytes(choosing.best(elements, rows=rows))


def in_turns(original: Callable[[], Any], changed: Callable[[], Any], *, threads: int) -> tuple[float, float]:
    """Median milliseconds of two calls that take turns, so that a busy machine meets both alike."""
    calls = (original, changed)
    spent: tuple[list[float], list[float]] = ([], [])
    with threads_set(threads), torch.inference_mode():
        for _ in range(_WARM_UPS):
            for call in calls:
                call()
        begun = perf_counter()
        while len(spent[0]) < _FEWEST or (len(spent[0]) < _MOST and perf_counter() - begun < _SECONDS):
            for call, times in zip(calls, spent, strict=True):
                start = perf_counter()
                call()
                times.append(1000 * (perf_counter() - start))
    return median(spent[0]), median(spent[1])
