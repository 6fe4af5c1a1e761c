"""What each layer costs in a runtime, as the runtime itself counts it, under the layers' own names."""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from slimcv.errors import SlimcvError, nearest

if TYPE_CHECKING:
    from slimcv.step import Variant

COUNTED = ("openvino", "onnxruntime", "inductor")
"""The runtimes that count; eager PyTorch is timed call by call (see slimcv.profile.timing)."""

SECONDS, FEWEST, MOST = 0.5, 5, 100
"""Calls are counted for so long, but so many at least and at most."""


@dataclass(frozen=True)
class Executed:
    """One node that the runtime ran: its name and kind there, and undisturbed milliseconds (see
    slimcv.profile.counters.calls).

    `sources` are the nodes of the lifted graph that were merged into it, none where it is the runtime's own.
    `precision` is what it computes in ("fp32", "bf16", "fp16", "int8"), None where the runtime does not tell.
    """

    name: str
    kind: str
    ms: float
    sources: tuple[str, ...]
    precision: str | None = None


@dataclass(frozen=True)
class Ran:
    """All that ran, in order; `call_ms` is a whole call without counting, `precision` that of the model."""

    nodes: tuple[Executed, ...]
    call_ms: float
    precision: str
    calls: int

    @property
    def mapped_share(self) -> float:
        """The fraction (0 to 1) of the nodes' time that belongs to layers of the network."""
        whole = sum(node.ms for node in self.nodes)
        return sum(node.ms for node in self.nodes if node.sources) / whole if whole else 0.0


def count(variant: Variant, runtime: str, *, threads: int) -> Ran:
    """Run the network on one picture in a runtime of `COUNTED` and have it count.

    Raises SlimcvError for another runtime, and where the runtime does not take the network.
    """
    if runtime not in COUNTED:
        raise SlimcvError(f"the runtime '{runtime}' counts nothing", nearest(runtime, COUNTED))
    found: Ran = importlib.import_module(f"slimcv.profile.counters.{runtime}").run(variant, threads=threads)
    return found


def owner(sources: Iterable[str], macs: Mapping[str, int]) -> str | None:
    """The layer that a merged node's time goes to: that with the most MACs, the first of equals."""
    return max(sources, key=lambda name: macs.get(name, 0), default=None)
