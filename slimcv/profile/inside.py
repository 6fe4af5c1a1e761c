"""What the layers of a variant take in a runtime, and how near each comes to this machine's limits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from slimcv.models import capture
from slimcv.profile import counters, gathering
from slimcv.profile.layers import Layer
from slimcv.profile.roofline import Limits
from slimcv.profile.timing import time_layers
from slimcv.step import Variant


@dataclass(frozen=True)
class Inside:
    """The layers of one network, timed one picture at a time in `runtime`, which computes in `precision`.

    `call_ms` is a whole call, `mapped_share` the fraction (0 to 1) of the counted time that belongs to a
    layer, `shapes` are those of the graph's tensors by node, with the batch.
    """

    runtime: str
    precision: str
    call_ms: float
    mapped_share: float
    layers: tuple[Layer, ...]
    shapes: Mapping[str, tuple[int, ...]]


def look(variant: Variant, *, runtime: str, threads: int, limits: Limits | None = None) -> Inside:
    """Time the layers in a runtime of `slimcv.profile.RUNTIMES`, for a second or two.

    With `limits` the layers are set against them. Raises SlimcvError where the runtime does not take the
    network.
    """
    model = variant.model
    capture.set_training(model, False)
    counted = runtime != "eager"
    picture = capture.example(variant.input, batch=1)
    timed = time_layers(model, picture, threads=threads, repeats=1 if counted else 3)
    eager = gathering.layers_of(variant, timed)
    ran = counters.count(variant, runtime, threads=threads) if counted else None
    layers = eager if ran is None else gathering.counted(eager, ran)
    precision = ran.precision if ran else "bf16" if variant.precision == "bf16" else "fp32"
    if limits is not None:
        needs = gathering.demands(model, eager, timed)
        asked = gathering.loads(layers, needs, limits, ran, precision=precision)
        layers = gathering.against_limits(layers, asked, limits)
    return Inside(
        runtime=runtime,
        precision=precision,
        call_ms=ran.call_ms if ran else timed.whole_ms,
        mapped_share=ran.mapped_share if ran else 1.0,
        layers=layers,
        shapes=timed.shapes,
    )
