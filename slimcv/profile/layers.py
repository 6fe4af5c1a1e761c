"""A profile as data: every layer with its cost, the totals, and the same by kind of layer."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class Layer:
    """One call in the graph. `output` is its shape without the batch, `share` of all the layers' time.

    `block` is the part of the network it belongs to, by its qualified name. Where a runtime runs the layer
    merged into another one, `merged_into` is that layer's name, and its time is there; `runs_as` is what the
    runtime calls what it runs. `activation_bytes` are read and written, `weight_bytes` read, both in the
    precision computed in; `intensity` is operations (two for a MAC) a byte, `gflops` 10^9 operations a
    second reached, `roofline_ms` the least time that this machine's limits allow and `roofline_share` that
    over the time taken; `bound` says which limit it is. None is not known.
    """

    name: str
    node: str
    kind: str
    output: tuple[int, ...] | None
    parameters: int
    macs: int
    ms: float
    share: float
    block: str = ""
    runs_as: str | None = None
    merged_into: str | None = None
    activation_bytes: int | None = None
    weight_bytes: int | None = None
    intensity: float | None = None
    gflops: float | None = None
    roofline_ms: float | None = None
    roofline_share: float | None = None
    bound: Literal["compute", "memory"] | None = None


@dataclass(frozen=True)
class Kind:
    """All layers of one kind, or of one block, together; `share` is their fraction of the layers' time.

    The last seven are those of a `Layer`, for all of the group: what it must read, write and compute in all,
    without the maps between layers that the runtime merges.
    """

    kind: str
    layers: int
    parameters: int
    macs: int
    ms: float
    share: float
    activation_bytes: int | None = None
    weight_bytes: int | None = None
    intensity: float | None = None
    gflops: float | None = None
    roofline_ms: float | None = None
    roofline_share: float | None = None
    bound: Literal["compute", "memory"] | None = None


@dataclass(frozen=True)
class Advice:
    """One thing to do and the recipe step for it, None where no step is needed.

    Where it is drawn from a prediction, `saved_ms` (a picture) and `saved_bytes` (of weights) are what that
    foretells, below 0 for a loss, and `share` is the fraction (0 to 1) saved `of` "time" or "bytes". A hint
    without a prediction has None for both, and `share` is what it concerns `of` "time" or "parameters".
    """

    text: str
    step: str | None
    share: float
    of: str
    saved_ms: float | None = None
    saved_bytes: int | None = None


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
    """Times are medians in milliseconds for one picture in `runtime`, which computes in `precision`.

    `layers_ms` is the sum over the layers, `call_ms` a whole call in the same process, `between_layers` the
    fraction (0 to 1) of a call spent outside the layers, a median over pairs of runs. `peak_rss_bytes` is the
    weights and what a call adds to the resident memory of the process, None where the system does not tell.
    `default_allocator_ms` and `tuned_allocator_ms` are whole calls in the same process, first and
    last, in eager PyTorch; None where they were not asked for. `mapped_share` is the fraction (0 to 1) of
    the time that a runtime counted and that belongs to a layer of the network.
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
    runtime: str = "eager"
    precision: str = "fp32"
    mapped_share: float = 1.0


@dataclass(frozen=True)
class Profile:
    """Where time and memory go, in the network's order, and what to do about it, the largest saving first.

    `lint` is what was checked about the network on this CPU, faults first. `by_block` are the layers by the
    part of the network they belong to, `limits` what this machine can do at most (see
    slimcv.profile.roofline), `predictions` what each step would save (see slimcv.profile.prediction).
    """

    model: dict[str, Any]
    layers: tuple[Layer, ...]
    totals: Totals
    by_kind: tuple[Kind, ...]
    advice: tuple[Advice, ...]
    lint: tuple[Check, ...] = ()
    by_block: tuple[Kind, ...] = ()
    limits: dict[str, Any] | None = None
    predictions: tuple[dict[str, Any], ...] = ()

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
            "by_block": [asdict(block) for block in self.by_block],
            "limits": self.limits,
            "predictions": list(self.predictions),
        }


def _listed(shape: tuple[int, ...] | None) -> list[int] | None:
    return None if shape is None else list(shape)
