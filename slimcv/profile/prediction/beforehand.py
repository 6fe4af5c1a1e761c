"""What a step will do to a variant, foretold before it is tried, to be held against what is measured then."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from time import perf_counter
from typing import TYPE_CHECKING, Any

from slimcv.errors import NotApplicable, SlimcvError
from slimcv.profile import gathering
from slimcv.profile.inside import look
from slimcv.profile.prediction import Bench, predict
from slimcv.profile.prediction.changes import Network
from slimcv.rounding import significant
from slimcv.step import Stage

if TYPE_CHECKING:
    from slimcv.profile.roofline import Limits
    from slimcv.step import Step, Variant

SECONDS = 3.0
"""What timing a step's new layers may take; those of the network itself come on top."""

STEPS = frozenset(
    {
        "compile",
        "depthwise_separable",
        "export_aotinductor",
        "export_nncf",
        "export_onnx",
        "export_onnx_int8",
        "export_openvino",
        "fuse_conv_bn",
        "global_average_pool",
        "low_rank",
        "prune_channels",
        "quantize_int8",
        "quantize_weights",
        "reduce_resolution",
    }
)
"""The steps whose time can be foretold, in the runtime that variants are compared in or that of an export."""

_PACKED = "what it saves shows in a packed file alone"
WHY_NOT = {
    "cluster_weights": _PACKED,
    "finetune": "it changes neither time nor bytes",
    "prune_weights": _PACKED,
}
"""Of steps with a prediction that the files of a run cannot be held against."""

_DIGITS = 2
"""What is foretold is off by some tens of percent."""

RUNTIMES = ("eager", "openvino", "onnxruntime")
"""Compiling for Inductor would take longer than trying the step."""


@dataclass(frozen=True)
class Foretold:
    """How many times faster a step will make the network, by its layers alone, and the bytes it leaves.

    `before_bytes` and `weight_bytes` are those of the weights before and after the step. `before_ms` and
    `after_ms` are the sums over the layers that this rests on, `runtime` is where the step's result runs.
    `timed_share`, `verdict` and the milliseconds of training, None where no layer that is trained changes,
    are those of slimcv.profile.prediction.Prediction.
    """

    speedup: float
    before_bytes: int
    weight_bytes: int | None
    timed_share: float
    runtime: str
    before_ms: float
    after_ms: float
    training_before_ms: float | None
    training_after_ms: float | None
    verdict: str

    def __str__(self) -> str:
        words = f"foretold: {significant(self.speedup, _DIGITS)}×"
        return f"{words}, {self.verdict}" if self.verdict else words

    def as_json(self) -> dict[str, Any]:
        """What a record keeps."""
        return asdict(self)


def network_of(variant: Variant, *, runtime: str, threads: int, limits: Limits | None = None) -> Network:
    """The variant with its layers timed in a runtime, with `limits` against those of this machine.

    Raises SlimcvError where the runtime does not take it.
    """
    found = look(variant, runtime=runtime, threads=threads, limits=limits)
    by_node = {layer.node: layer for layer in found.layers if layer.node}
    return Network(variant, by_node, found.shapes, runtime, gathering.weight_bytes(variant.model))


def foretell(network: Network, name: str, step: Step, *, threads: int) -> Foretold:
    """What the step will do. Raises NotApplicable, with the reason, where that cannot be told."""
    try:
        found = predict(name, step, network, Bench(threads=threads, deadline=perf_counter() + SECONDS))
    except SlimcvError as error:
        raise NotApplicable(error.message) from error
    if found.problem is not None:
        raise NotApplicable(found.problem)
    if found.runtime != network.runtime and step.stage != Stage.EXPORT:
        raise NotApplicable(f"it is foretold in {found.runtime} and was compared in {network.runtime}")
    if found.speedup is None or found.after_ms is None:
        raise NotApplicable(found.verdict or "its layers take no time")
    return Foretold(
        speedup=found.speedup,
        before_bytes=found.before_bytes,
        weight_bytes=found.after_bytes,
        timed_share=found.timed_share,
        runtime=found.runtime,
        before_ms=found.before_ms,
        after_ms=found.after_ms,
        training_before_ms=found.training_before_ms,
        training_after_ms=found.training_after_ms,
        verdict=found.verdict,
    )
