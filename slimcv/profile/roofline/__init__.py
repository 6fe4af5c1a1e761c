"""How near a layer comes to what this machine can do at most (Williams et al. 2009, "Roofline")."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from slimcv.profile.layers import Layer
from slimcv.profile.roofline.limits import Limits, measured

__all__ = ["Demand", "Limits", "drawn_upon", "measured"]

_BYTES = {"fp32": 4, "bf16": 2, "fp16": 2, "int8": 1}
"""Bytes of a value, activation or weight, in each precision."""


@dataclass(frozen=True)
class Demand:
    """What a layer must do at the least: operations (two for a MAC), and values it reads and writes once."""

    operations: int
    activations: int
    weights: int

    def bytes(self, precision: str) -> int:
        """What goes between memory and CPU where every value is in this precision."""
        return (self.activations + self.weights) * _BYTES.get(precision, 4)


def drawn_upon(layer: Layer, demand: Demand, limits: Limits, *, precision: str) -> Layer:
    """The layer with its bytes, its reached rate and the share (0 to 1, and above) of the roofline reached.

    A share above 1 is no error: what the layer before left in a cache need not come from memory, and
    Winograd's convolutions multiply less than they count (Lavin and Gray 2016).
    """
    moved = demand.bytes(precision)
    compute_ms = demand.operations / (1e6 * limits.gflops(precision))
    memory_ms = moved / (1e6 * limits.memory_gbytes)
    least = max(compute_ms, memory_ms)
    timed = layer.ms > 0
    return replace(
        layer,
        activation_bytes=demand.activations * _BYTES.get(precision, 4),
        weight_bytes=demand.weights * _BYTES.get(precision, 4),
        intensity=demand.operations / moved if moved else None,
        gflops=demand.operations / (1e6 * layer.ms) if timed and demand.operations else None,
        roofline_ms=least if timed else None,
        roofline_share=least / layer.ms if timed else None,
        bound=("compute" if compute_ms >= memory_ms else "memory") if timed and moved else None,
    )


def together(demands: Mapping[str, Demand], names: tuple[str, ...]) -> Demand:
    """The demand of layers merged into the first of them, whose maps between them never leave the CPU."""
    own = demands[names[0]]
    return replace(own, operations=sum(demands[name].operations for name in names))
