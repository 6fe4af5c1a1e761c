"""Static INT8 by Intel Neural Compressor's PT2E path: one graph for Inductor, ONNX Runtime and OpenVINO."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx

from slimcv.errors import NotApplicable
from slimcv.measure import allocator, macs
from slimcv.models import capture
from slimcv.quantization.bias import correct_biases
from slimcv.quantization.calibration import calibrate, observers
from slimcv.quantization.compressor import neural_compressor, quiet
from slimcv.quantization.graph import (
    FULL,
    NORMS,
    POOLS,
    REDUCED,
    dequantizes,
    lifted,
    name_sources,
    retarget,
    spell_out_padding,
    veil,
    weight_names,
)
from slimcv.quantization.histograms import Ranges, Scales, rescaled, unwatch, watch
from slimcv.quantization.mantissa import shorten_biases, shorten_scales
from slimcv.quantization.shared import scale_alike
from slimcv.step import Gain, InputSpec

__all__ = [
    "FULL",
    "REDUCED",
    "Calibrated",
    "calibrated",
    "calibration_speed",
    "dequantizes",
    "layers_in_float",
    "quiet",
]


@dataclass(frozen=True)
class Calibrated:
    """An INT8 graph as calibration left it, and what is needed to make it better.

    `pictures` (n, channels, height, width) and `means`, the channel means of every layer in float on them
    by node, are what biases are corrected with. `narrowed` holds other scales of the maps, by how they are
    found.
    """

    graph: fx.GraphModule
    pictures: Tensor
    means: dict[str, Tensor]
    mantissa_bits: int | None = None
    narrowed: dict[Ranges, Scales] = field(default_factory=dict)

    def with_ranges(self, ranges: Ranges) -> fx.GraphModule:
        """A copy of the graph whose maps have these ranges."""
        return rescaled(self.graph, {} if ranges == "extremes" else self.narrowed[ranges])

    def corrected(self, graph: fx.GraphModule) -> fx.GraphModule:
        """A copy of `graph`, this one or one with other ranges, with corrected biases.

        Each lacks what quantisation shifts the mean of the layer's outputs by.
        """
        model = capture.copy(graph)
        correct_biases(model, self.pictures, self.means)
        if self.mantissa_bits is not None:
            shorten_biases(model, self.mantissa_bits)
        return model


def calibrated(
    model: fx.GraphModule,
    batches: Iterable[Tensor],
    *,
    input: InputSpec,
    reduce_range: bool,
    in_float: Collection[str] = (),
    preserve: Collection[Gain] = (),
    mantissa_bits: int | None = None,
    histograms: bool = False,
) -> Calibrated:
    """The INT8 graph of a lifted network: u8 activations, one scale a tensor; s8 weights, one a channel.

    `batches` are normalised calibration pictures (n, channels, height, width). Weights are stored as int8 at
    the names they had; running the graph eagerly computes on dequantised values, which is what exact INT8
    kernels compute. `model` is left as it is. `reduce_range` keeps weights to 7 bits (see `REDUCED`). Layers
    named in `in_float` are left alone. Scales are symmetric, so zeros stay zero; to preserve `clusters`, a
    layer whose weights share their values has one scale. Scales of weights and biases have `mantissa_bits`,
    where given. With `histograms`, which take time, ranges can be narrowed.

    Raises NotApplicable where Neural Compressor finds nothing to quantise, or no picture was given.
    """
    quantizer = neural_compressor()
    program = capture.exported(capture.deterministic(model), input)
    graph_module: Any = program.module(check_guards=False)
    graph_module._exported = True
    spell_out_padding(graph_module)
    veil(graph_module.graph, in_float)
    name_sources(graph_module.graph)
    retarget(graph_module.graph, POOLS)
    graph_module.recompile()
    with quiet():
        prepared = quantizer.prepare(graph_module)
    if prepared is None:
        raise NotApplicable("Neural Compressor gave no graph back")
    if reduce_range:
        for observer in observers(prepared, torch.int8):
            observer.quant_min, observer.quant_max = REDUCED
    weights = weight_names(prepared.graph)
    watched = watch(prepared) if histograms else {}
    pictures, means = calibrate(prepared, batches)
    narrowed = unwatch(prepared, watched) if histograms else {}
    if "clusters" in preserve:
        scale_alike(prepared)
    if mantissa_bits is not None:
        shorten_scales(prepared, mantissa_bits)
    retarget(prepared.graph, NORMS)
    with quiet():
        converted = quantizer.convert(prepared, fold_quantize=True)
    if converted is None or not any(map(dequantizes, converted.graph.nodes)):
        raise NotApplicable("Neural Compressor found nothing to quantise in this network")
    rebuilt = lifted(converted, weights)
    if mantissa_bits is not None:
        shorten_biases(rebuilt, mantissa_bits)
    return Calibrated(rebuilt, pictures, means, mantissa_bits, narrowed)


def layers_in_float(model: fx.GraphModule, input: InputSpec) -> dict[str, int]:
    """MACs by name of the layers and matrix products that do not take 8-bit integers on both sides."""
    return {
        macs.layer_name(node): cost
        for node, cost in macs.by_node(model, input).items()
        if not macs.on_integers(node)
    }


@contextlib.contextmanager
def calibration_speed(threads: int) -> Iterator[None]:
    """Eager PyTorch at its fastest: this many threads, and an allocator that keeps large activations."""
    before = torch.get_num_threads()
    allocator.tune()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)
