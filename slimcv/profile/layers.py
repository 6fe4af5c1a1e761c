"""A profile as data: every layer with its cost, the totals, and the same by kind of layer."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any, Literal

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class Layer:
    """One call in the graph. `output` is its shape without the batch, `share` of all the layers' time."""

    name: str
    node: str
    kind: str
    output: tuple[int, ...] | None
    parameters: int
    macs: int
    ms: float
    share: float


@dataclass(frozen=True)
class Kind:
    """All layers of one kind together; `share` is their fraction of the layers' time."""

    kind: str
    layers: int
    parameters: int
    macs: int
    ms: float
    share: float


@dataclass(frozen=True)
class Advice:
    """One thing that dominates and the recipe step that addresses it, None where no step is needed.

    `share` is its fraction (0 to 1) `of` a total: "parameters", "time" or "MACs".
    """

    text: str
    step: str | None
    share: float
    of: str


@dataclass(frozen=True)
class Check:
    """What one rule of the CPU lint found.

    `fault` costs time now and can be mended, `note` is a limit of this machine to know of, `fine` neither;
    `fix` is None where there is nothing to do. `now_ms` and `fixed_ms` are what was measured, as it is and
    with the fix, None where nothing was.
    """

    rule: str
    state: Literal["fault", "note", "fine"]
    text: str
    fix: str | None = None
    now_ms: float | None = None
    fixed_ms: float | None = None


@dataclass(frozen=True)
class Totals:
    """Times are medians in milliseconds for one picture in eager PyTorch.

    `layers_ms` is the sum over the layers, `call_ms` a whole call in the same process, `between_layers` the
    fraction (0 to 1) of a call spent outside the layers, a median over pairs of runs. `peak_rss_bytes` is the
    weights and what a call adds to the resident memory of the process, None where the system does not tell.
    `default_allocator_ms` and `tuned_allocator_ms` are whole calls in a process of their own, one after the
    other; None where they were not asked for.
    """

    parameters: int
    buffers: int
    macs: int
    weight_bytes: int
    peak_activation_bytes: int
    peak_activation_layer: str
    layers_ms: float
    call_ms: float
    between_layers: float
    repeats: int
    threads: int
    default_allocator_ms: float | None = None
    tuned_allocator_ms: float | None = None
    peak_rss_bytes: int | None = None


@dataclass(frozen=True)
class Profile:
    """Where time and memory go, in the network's order, and what to do about it, the largest share first.

    `lint` is what was checked about the network on this CPU, faults first.
    """

    model: dict[str, Any]
    layers: tuple[Layer, ...]
    totals: Totals
    by_kind: tuple[Kind, ...]
    advice: tuple[Advice, ...]
    lint: tuple[Check, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """The object `slimcv profile --format json` prints."""
        return {
            "schema_version": SCHEMA_VERSION,
            "model": self.model,
            "layers": [{**asdict(layer), "output": _listed(layer.output)} for layer in self.layers],
            "totals": asdict(self.totals),
            "by_kind": [asdict(kind) for kind in self.by_kind],
            "advice": [asdict(advice) for advice in self.advice],
            "lint": [asdict(check) for check in self.lint],
        }


def gather(layers: Iterable[Layer]) -> tuple[Kind, ...]:
    """The layers by kind, the slowest kind first."""
    kinds: dict[str, list[Layer]] = {}
    for layer in layers:
        kinds.setdefault(layer.kind, []).append(layer)
    gathered = [
        Kind(
            kind=kind,
            layers=len(members),
            parameters=sum(layer.parameters for layer in members),
            macs=sum(layer.macs for layer in members),
            ms=sum(layer.ms for layer in members),
            share=sum(layer.share for layer in members),
        )
        for kind, members in kinds.items()
    ]
    return tuple(sorted(gathered, key=lambda kind: -kind.ms))


def _listed(shape: tuple[int, ...] | None) -> list[int] | None:
    return None if shape is None else list(shape)
