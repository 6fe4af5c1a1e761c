"""What dominates a network, in words, and which recipe step addresses it; all of it follows from shares."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod

from torch import fx, nn

from slimcv.profile import kinds
from slimcv.profile.layers import Advice, Layer, Totals
from slimcv.report import figures

_WORTH_SAYING = 0.1
"""Below a tenth of a total a saving is small beside what else there is to do."""
_LARGE_INPUT = 64
"""Pixels a side below which a picture has no resolution to give away."""


@dataclass(frozen=True)
class Findings:
    """What the rules look at. `shapes` are those of the graph's tensors by node name, with the batch.

    In an INT8 graph (`quantized`) nothing is changed any more.
    """

    model: fx.GraphModule
    layers: Sequence[Layer]
    totals: Totals
    shapes: dict[str, tuple[int, ...]]
    input: tuple[int, int, int]
    has_int8_instructions: bool
    quantized: bool = False

    def time(self, layers: Sequence[Layer]) -> float:
        """The fraction of the layers' time that these take."""
        return sum(layer.share for layer in layers)

    def macs(self, layers: Sequence[Layer]) -> float:
        """The fraction of the MACs that these hold."""
        return sum(layer.macs for layer in layers) / max(self.totals.macs, 1)


def advise(findings: Findings) -> tuple[Advice, ...]:
    """All advice that holds for this network, the largest share first."""
    given = [
        *_dense_head(findings),
        *_dense_convolutions(findings),
        *_input_size(findings),
        *_batch_norms(findings),
        *_matrix_work(findings),
        *_passes_over_memory(findings),
        *_between_layers(findings),
    ]
    if findings.quantized:
        given = [advice for advice in given if advice.step is None or advice.step.startswith("export_")]
    return tuple(sorted(given, key=lambda advice: -advice.share))


def _dense_head(findings: Findings) -> Iterator[Advice]:
    """The linear layer with most parameters, if it holds a good part of them all."""
    linear = [layer for layer in findings.layers if layer.kind == kinds.LINEAR]
    if not linear:
        return
    largest = max(linear, key=lambda layer: layer.parameters)
    share = largest.parameters / max(findings.totals.parameters, 1)
    if share < _WORTH_SAYING:
        return
    start = (
        f"the dense layer '{largest.name}' holds {figures.share(share)} of the parameters "
        f"({figures.count(largest.parameters)})"
    )
    source = _flattened_map(findings, largest)
    if source is None:
        text = f"{start}: quantize_int8 stores them in a quarter of the bytes"
        yield Advice(text, "quantize_int8", share, "parameters")
        return
    features = findings.shapes[source.name][1:]
    positions = features[1] * features[2]
    left = figures.count(largest.parameters // positions)
    text = (
        f"{start}, because it reads every position of a flattened {_times(features)} map: "
        f"global_average_pool averages the {positions} positions first and leaves about {left}"
    )
    yield Advice(text, "global_average_pool", share, "parameters")


def _dense_convolutions(findings: Findings) -> Iterator[Advice]:
    dense = [layer for layer in findings.layers if kinds.is_dense_convolution(layer.kind)]
    share = findings.time(dense)
    if share < _WORTH_SAYING:
        return
    before = sum(layer.macs for layer in dense)
    after = sum(_separable_macs(findings, layer) for layer in dense)
    text = (
        f"{_names(dense)} take {figures.share(share)} of the time and "
        f"{figures.share(findings.macs(dense))} of the MACs: "
        f"depthwise_separable leaves about {figures.share(after / max(before, 1))} of their MACs (rank 1)"
    )
    yield Advice(text, "depthwise_separable", share, "time")


def _input_size(findings: Findings) -> Iterator[Advice]:
    channels, height, width = findings.input
    if min(height, width) < _LARGE_INPUT or any(layer.kind == kinds.ATTENTION for layer in findings.layers):
        return
    maps = [layer for layer in findings.layers if layer.output is not None and len(layer.output) == 3]
    spatial = [layer for layer in maps if layer.output is not None and max(layer.output[1:]) > 1]
    saved = 0.75 * findings.macs(spatial)
    if saved < _WORTH_SAYING:
        return
    linear = [layer for layer in findings.layers if layer.kind == kinds.LINEAR]
    fixed = any(_fixes_the_input(findings, layer) for layer in linear)
    first = ", after global_average_pool, since the dense layer fixes the size now" if fixed else ""
    text = (
        f"the input is {channels}×{height}×{width}: halving it to {height // 2}×{width // 2} "
        f"(reduce_resolution) saves about {figures.share(saved)} of the MACs{first}"
    )
    yield Advice(text, "reduce_resolution", saved, "MACs")


def _batch_norms(findings: Findings) -> Iterator[Advice]:
    norms = [layer for layer in findings.layers if layer.kind == kinds.BATCH_NORM]
    share = findings.time(norms)
    if share < _WORTH_SAYING / 2:
        return
    many = f"{len(norms)} BatchNorms, each a pass over memory of its own, take" if len(norms) > 1 else ""
    text = (
        f"{many or 'one BatchNorm takes'} {figures.share(share)} of the time: "
        "fuse_conv_bn folds what it can into the weights next to it"
    )
    yield Advice(text, "fuse_conv_bn", share, "time")


def _matrix_work(findings: Findings) -> Iterator[Advice]:
    work = [layer for layer in findings.layers if kinds.is_matrix_work(layer.kind)]
    share = findings.time(work)
    dense = [layer for layer in work if layer.kind != kinds.DEPTHWISE]
    if share < _WORTH_SAYING or findings.time(dense) < _WORTH_SAYING:
        return
    text = (
        f"convolutions and dense layers take {figures.share(share)} of the time: "
        "quantize_int8 does them in 8-bit integers"
    )
    depthwise = findings.time([layer for layer in work if layer.kind == kinds.DEPTHWISE])
    if depthwise > _WORTH_SAYING:
        text += f" (the {figures.share(depthwise)} in depthwise convolutions wait for memory and gain little)"
    if not findings.has_int8_instructions:
        text += "; this CPU has no instructions for 8-bit products (VNNI), so that the gain is smaller here"
    yield Advice(text, "quantize_int8", share, "time")


def _passes_over_memory(findings: Findings) -> Iterator[Advice]:
    passes = [layer for layer in findings.layers if layer.kind in kinds.PASSES_OVER_MEMORY]
    share = findings.time(passes)
    if share >= _WORTH_SAYING:
        text = (
            f"{len(passes)} activations, poolings and element-wise operations take {figures.share(share)} of "
            "the time for almost no MACs: export_openvino and compile merge them with the layers around them"
        )
        yield Advice(text, "export_openvino", share, "time")


def _between_layers(findings: Findings) -> Iterator[Advice]:
    share = findings.totals.between_layers
    if share >= _WORTH_SAYING:
        text = (
            f"{figures.share(share)} of a call is spent between the layers, not in them: "
            "export_openvino and export_onnx run the network without Python"
        )
        yield Advice(text, "export_openvino", share, "time")


def _flattened_map(findings: Findings, layer: Layer) -> fx.Node | None:
    """The node whose C×H×W map a linear layer reads flattened; None where it reads another vector."""
    node = next(node for node in findings.model.graph.nodes if node.name == layer.node)
    features = findings.shapes.get(getattr(node.args[0], "name", ""), ())[-1:]
    while node.args and isinstance(node.args[0], fx.Node):
        node = node.args[0]
        shape = findings.shapes.get(node.name, ())
        if len(shape) == 4:
            return node if (prod(shape[1:]),) == features and shape[2] * shape[3] > 1 else None
        if kinds.kind_of(node, findings.shapes) not in (kinds.RESHAPE, kinds.DROPOUT):
            return None
    return None


def _fixes_the_input(findings: Findings, layer: Layer) -> bool:
    """A linear layer on a flattened map takes one size of picture, unless a pooling adapts the map."""
    source = _flattened_map(findings, layer)
    return source is not None and not kinds.function_name(source).startswith("adaptive")


def _separable_macs(findings: Findings, layer: Layer) -> int:
    """MACs of the depthwise and pointwise pair for a dense convolution: 1/outputs + 1/kernel of its own."""
    node = next(node for node in findings.model.graph.nodes if node.name == layer.node)
    if node.op == "call_module":
        module = findings.model.get_submodule(str(node.target))
        if not isinstance(module, nn.Conv2d):
            return layer.macs
        weight: tuple[int, ...] = tuple(module.weight.shape)
    else:
        weight = findings.shapes[node.args[1].name]
    return round(layer.macs * (1 / weight[0] + 1 / prod(weight[2:])))


def _names(layers: Sequence[Layer]) -> str:
    """The kinds of some layers, the slowest first: "8 3×3 convolutions" or "3×3 and 5×5 convolutions"."""
    times: dict[str, float] = {}
    for layer in layers:
        extent = layer.kind.partition(" ")[0]
        times[extent] = times.get(extent, 0.0) + layer.ms
    extents = sorted(times, key=lambda extent: -times[extent])
    listed = extents[0] if len(extents) == 1 else ", ".join(extents[:-1]) + " and " + extents[-1]
    return f"{listed} convolutions"


def _times(shape: tuple[int, ...]) -> str:
    return "×".join(str(extent) for extent in shape)
