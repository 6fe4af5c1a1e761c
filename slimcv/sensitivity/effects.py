"""What a changed layer does to the network's outputs: how much noise, and how many answers become wrong."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from slimcv.measure import accuracy


@dataclass(frozen=True)
class Effect:
    """`error` is the norm of the outputs' change over that of the outputs, `sqnr_db` the same in decibels.

    SQNR is 10·log10 of the power of the outputs over that of their change: None where nothing changed (it is
    infinite) and where outputs are no numbers any more; then `error` is None too. `top1_drop` are points
    lost, None without labels.
    """

    error: float | None
    sqnr_db: float | None
    top1_drop: float | None


def effect(outputs: Tensor, expected: Tensor, labels: Tensor | None = None) -> Effect:
    """Compare outputs (n, classes) with those `expected`, and both with the `labels` (n,)."""
    error = relative_error(outputs, expected)
    drop = None if labels is None else top1(expected, labels) - top1(outputs, labels)
    if not math.isfinite(error):
        return Effect(None, None, drop)
    return Effect(error, -20 * math.log10(error) if error else None, drop)


def relative_error(outputs: Tensor, expected: Tensor) -> float:
    """The norm of the difference over the norm of what is expected."""
    return float((outputs - expected).norm() / expected.norm().clamp(min=1e-12))


def top1(outputs: Tensor, labels: Tensor) -> float:
    """The percentage of outputs (n, classes) that are right."""
    return accuracy.score(outputs.numpy(), labels.numpy()).top1
