"""How near a layer comes to what this machine can do at most (Williams et al. 2009, "Roofline")."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TypeVar

from slimcv.profile.layers import Kind, Layer
from slimcv.profile.roofline.limits import Limits, measured

__all__ = ["Demand", "Limits", "Load", "load", "measured", "reached"]

_Timed = TypeVar("_Timed", Layer, Kind)

_BYTES = {"fp32": 4, "bf16": 2, "fp16": 2, "int8": 1}
"""Bytes of a value, activation or weight, in each precision."""


@dataclass(frozen=True)
class Demand:
    """What a layer must do at the least: operations (two for a MAC), and values it reads and writes once."""

    operations: int
    activations: int
    weights: int


@dataclass(frozen=True)
class Load:
    """Operations and bytes of one layer or of several, each in its own precision.

    `compute_ms` is the least time that the operations take at the peaks of their precisions.
    """

    operations: int = 0
    activation_bytes: int = 0
    weight_bytes: int = 0
    compute_ms: float = 0.0

    def __add__(self, other: Load) -> Load:
        return Load(
            self.operations + other.operations,
            self.activation_bytes + other.activation_bytes,
            self.weight_bytes + other.weight_bytes,
            self.compute_ms + other.compute_ms,
        )


def load(demand: Demand, limits: Limits, *, precision: str) -> Load:
    """What a layer asks of this machine where it computes in this precision."""
    width = _BYTES.get(precision, 4)
    return Load(
        operations=demand.operations,
        activation_bytes=demand.activations * width,
        weight_bytes=demand.weights * width,
        compute_ms=demand.operations / (1e6 * limits.gflops(precision)),
    )


def reached(timed: _Timed, load: Load, limits: Limits) -> _Timed:
    """A layer or a group of them with bytes, reached rate and share (0 to 1, and above) of the roofline.

    A share above 1 is no error: what the layer before left in a cache need not come from memory, and
    Winograd's convolutions multiply less than they count (Lavin and Gray 2016).
    """
    moved = load.activation_bytes + load.weight_bytes
    memory_ms = moved / (1e6 * limits.memory_gbytes)
    least = max(load.compute_ms, memory_ms)
    ran = timed.ms > 0
    return replace(
        timed,
        activation_bytes=load.activation_bytes,
        weight_bytes=load.weight_bytes,
        intensity=load.operations / moved if moved else None,
        gflops=load.operations / (1e6 * timed.ms) if ran and load.operations else None,
        roofline_ms=least if ran else None,
        roofline_share=least / timed.ms if ran else None,
        bound=("compute" if load.compute_ms >= memory_ms else "memory") if ran and moved else None,
    )
