"""What a layer or a group of layers moves and reaches, as columns of a profile's tables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from slimcv.report import figures

HEADINGS = ("activations", "weights", "operations a byte", "GFLOP/s")
"""The bytes read and written, those of the weights, the arithmetic intensity, and the rate reached."""

OF_LIMIT = "of limit"


def cells(cost: Mapping[str, Any]) -> tuple[str, ...]:
    """What `HEADINGS` say; older profiles know nothing of groups."""
    intensity, rate = cost.get("intensity"), cost.get("gflops")
    return (
        figures.size(cost.get("activation_bytes")),
        figures.size(cost.get("weight_bytes")),
        figures.NOT_MEASURED if intensity is None else figures.significant(intensity),
        figures.NOT_MEASURED if rate is None else figures.significant(rate),
    )


def values(cost: Mapping[str, Any]) -> tuple[float | None, ...]:
    """The same as numbers, to sort by."""
    return tuple(cost.get(key) for key in ("activation_bytes", "weight_bytes", "intensity", "gflops"))


def of_limit(cost: Mapping[str, Any]) -> str:
    """The share of the roofline reached, and which limit that is."""
    if cost.get("roofline_share") is None or cost.get("bound") is None:
        return figures.NOT_MEASURED
    return f"{100 * cost['roofline_share']:.0f} % {'memory' if cost['bound'] == 'memory' else 'CPU'}"
