"""What a step will do to a variant, foretold before it is tried, to be held against what is measured then."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from time import perf_counter
from typing import TYPE_CHECKING, Any

from slimcv.errors import SlimcvError
from slimcv.models import capture
from slimcv.profile import counters, gathering
from slimcv.profile.prediction import Bench, predict
from slimcv.profile.prediction.changes import Network
from slimcv.profile.timing import time_layers

if TYPE_CHECKING:
    from slimcv.step import Step, Variant

SECONDS = 3.0
"""What timing a step's new layers may take; those of the network itself come on top."""

STEPS = frozenset(
    {
        "depthwise_separable",
        "fuse_conv_bn",
        "global_average_pool",
        "low_rank",
        "prune_channels",
        "quantize_int8",
        "reduce_resolution",
    }
)
"""The steps whose time can be foretold in the runtime that variants are compared in."""

RUNTIMES = ("eager", "openvino", "onnxruntime")
"""Compiling for Inductor would take longer than trying the step."""


@dataclass(frozen=True)
class Foretold:
    """How many times faster a step will make the network, by its layers alone, and the bytes it leaves."""

    speedup: float
    weight_bytes: int | None
    timed_share: float

    def as_json(self) -> dict[str, Any]:
        """What a record keeps."""
        return asdict(self)


def network_of(variant: Variant, *, runtime: str, threads: int) -> Network:
    """The variant with its layers timed in a runtime. Raises SlimcvError where that does not take it."""
    model = variant.model
    capture.set_training(model, False)
    timed = time_layers(model, capture.example(variant.input, batch=1), threads=threads, repeats=3)
    layers = gathering.layers_of(variant, timed)
    if runtime != "eager":
        layers = gathering.counted(layers, counters.count(variant, runtime, threads=threads))
    by_node = {layer.node: layer for layer in layers if layer.node}
    return Network(variant, by_node, timed.shapes, runtime, gathering.weight_bytes(model))


def foretell(network: Network, name: str, step: Step, *, threads: int) -> Foretold | None:
    """What the step will do; None where that cannot be told."""
    try:
        found = predict(name, step, network, Bench(threads=threads, deadline=perf_counter() + SECONDS))
    except SlimcvError:
        return None
    if found.speedup is None or found.runtime != network.runtime:
        return None
    return Foretold(found.speedup, found.after_bytes, found.timed_share)
