"""Which steps to take: those foretold to save something, with what in the network makes them save it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

from torch import fx

from slimcv.profile import kinds
from slimcv.profile.layers import Advice, Layer, Totals
from slimcv.report import figures, pasting
from slimcv.report.predictions import can_shrink, gains, saved

_WORTH_SAYING = 0.1
"""Below a tenth of a total nothing dominates it."""
_DIGITS = 2
"""What a prediction is good for."""

_ALTERNATIVES = (pasting.CONVOLUTIONS, pasting.INT8, (*pasting.RUNTIMES, "export_aotinductor"))
"""Steps in each other's place: the one that saves most is advised, the others are named beside it."""


@dataclass(frozen=True)
class Findings:
    """What reasons are drawn from. `shapes` are those of the graph's tensors by node name, with the batch."""

    model: fx.GraphModule
    layers: Sequence[Layer]
    totals: Totals
    shapes: dict[str, tuple[int, ...]]
    input: tuple[int, int, int]
    has_int8_instructions: bool

    def time(self, layers: Sequence[Layer]) -> float:
        """The fraction of the layers' time that these take."""
        return sum(layer.share for layer in layers)

    def macs(self, layers: Sequence[Layer]) -> float:
        """The fraction of the MACs that these hold."""
        return sum(layer.macs for layer in layers) / max(self.totals.macs, 1)


@dataclass(frozen=True)
class _Reason:
    """What in the network a step goes for: a `share` (0 to 1) of "time" or "parameters"."""

    text: str
    share: float
    of: str = "time"


_Foretold = Mapping[str, Any]
"""A prediction as JSON (see slimcv.profile.prediction)."""


def advise(findings: Findings, predictions: Sequence[_Foretold]) -> tuple[Advice, ...]:
    """The steps that are foretold to gain, the most milliseconds first; then hints without a prediction."""
    known = {one["step"]: one for one in predictions if one["problem"] is None}
    reasons = {step: reason for step, why in _REASONS.items() if (reason := why(findings)) is not None}
    if not can_shrink(findings.input):
        known.pop("reduce_resolution", None)
    saving = [one for one in known.values() if _gains(one, reasons)]
    saving.sort(key=lambda one: -(saved(one, "ms") or 0.0))
    given = []
    while saving:
        best = saving.pop(0)
        group = next((steps for steps in _ALTERNATIVES if best["step"] in steps), ())
        others = [one for one in saving if one["step"] in group]
        saving = [one for one in saving if one not in others]
        given.append(_foretold(best, others, reasons.get(best["step"]), runtime=findings.totals.runtime))
    return (*given, *_hints(findings, known, reasons))


def _gains(one: _Foretold, reasons: Mapping[str, _Reason]) -> bool:
    """Whether a step is foretold to save time, or bytes where what it goes for holds a good part of them."""
    reason = reasons.get(one["step"])
    return gains(one, "ms") or (reason is not None and reason.of == "parameters" and gains(one, "bytes"))


def _foretold(one: _Foretold, others: Sequence[_Foretold], reason: _Reason | None, *, runtime: str) -> Advice:
    """Advice in the words and figures of its prediction; `runtime` is the one that was profiled."""
    ms, bytes = saved(one, "ms"), saved(one, "bytes")
    faster = gains(one, "ms")
    parts = []
    if faster and ms is not None:
        ratio = one["before_ms"] / one["after_ms"] if one["after_ms"] else None
        words = figures.times(ratio, "faster", "slower", digits=_DIGITS)
        parts.append(f"{_significant(ms)} of {_significant(one['before_ms'])} ms ({words})")
    if gains(one, "bytes") and bytes is not None:
        parts.append(f"{figures.size(bytes)} of {figures.size(one['before_bytes'])} of weights")
    text = f"{one['step']} saves {' and '.join(parts)}"
    text += "" if faster else _at_the_cost_of(ms)
    text += f", in {one['runtime']}" if one["runtime"] != runtime else ""
    text += f": {reason.text}" if reason is not None else ""
    instead = ", ".join(f"{other['step']} {_significant(saved(other, 'ms') or 0.0)} ms" for other in others)
    return Advice(
        text + (f"; in its place {instead}" if instead else ""),
        one["step"],
        share=(ms or 0.0) / one["before_ms"] if faster else (bytes or 0) / one["before_bytes"],
        of="time" if faster else "bytes",
        saved_ms=ms,
        saved_bytes=None if bytes is None else int(bytes),
    )


def _at_the_cost_of(saved_ms: float | None) -> str:
    if saved_ms is None:
        return ", its time not foretold"
    return f" and takes {_significant(-saved_ms)} ms more" if saved_ms < 0 else " and no time worth naming"


def _significant(value: float) -> str:
    return figures.significant(value, _DIGITS)


def _hints(
    findings: Findings, known: Mapping[str, _Foretold], reasons: Mapping[str, _Reason]
) -> Iterator[Advice]:
    """What no prediction is about, the largest share first; each says that it is none."""
    found = [
        Advice(
            f"not foretold ({known[step]['verdict']}): {reason.text}: {step}", step, reason.share, reason.of
        )
        for step, reason in reasons.items()
        if step in known and known[step]["after_ms"] is None and not _gains(known[step], reasons)
    ]
    found += [*_smaller_after_pooling(findings, known), *_between_layers(findings)]
    yield from sorted(found, key=lambda advice: -advice.share)


def _smaller_after_pooling(findings: Findings, known: Mapping[str, _Foretold]) -> Iterator[Advice]:
    """A dense layer that fixes the size of the pictures, until pooling frees it."""
    share = _on_maps(findings)
    linear = [layer for layer in findings.layers if layer.kind == kinds.LINEAR]
    fixed = any(_fixes_the_input(findings, layer) for layer in linear)
    large = can_shrink(findings.input)
    now = "reduce_resolution" in known
    if large and fixed and not now and share >= _WORTH_SAYING and "global_average_pool" in known:
        text = (
            f"not foretold: {_halved(findings)} (reduce_resolution) is possible once global_average_pool is "
            f"done, since a dense layer fixes the size now; layers on maps take {figures.share(share)} of "
            "the time"
        )
        yield Advice(text, "reduce_resolution", share, "time")


def _between_layers(findings: Findings) -> Iterator[Advice]:
    share = findings.totals.between_layers
    if share >= _WORTH_SAYING:
        text = (
            f"not foretold: {figures.share(share)} of a call is spent between the layers, and predictions "
            "are of the layers alone; export_openvino and export_onnx run the network without Python"
        )
        yield Advice(text, "export_openvino", share, "time")


def _flattened_head(findings: Findings) -> _Reason | None:
    """The largest linear layer, where it reads a flattened map."""
    largest, share = _largest_head(findings)
    source = None if largest is None else _flattened_map(findings, largest)
    if largest is None or source is None:
        return None
    features = findings.shapes[source.name][1:]
    positions = features[1] * features[2]
    left = figures.count(largest.parameters // positions)
    text = (
        f"{_holds(largest, share)}, because it reads every position of a flattened {_times(features)} map; "
        f"averaging the {positions} positions first leaves about {left}"
    )
    return _Reason(text, share, "parameters")


def _plain_head(findings: Findings) -> _Reason | None:
    """The largest linear layer, where there is nothing to average before it."""
    largest, share = _largest_head(findings)
    if largest is None or _flattened_map(findings, largest) is not None:
        return None
    return _Reason(_holds(largest, share), share, "parameters")


def _largest_head(findings: Findings) -> tuple[Layer | None, float]:
    """The linear layer with most parameters and its share of them all, if that is a good part."""
    linear = [layer for layer in findings.layers if layer.kind == kinds.LINEAR]
    largest = max(linear, key=lambda layer: layer.parameters, default=None)
    share = 0.0 if largest is None else largest.parameters / max(findings.totals.parameters, 1)
    return (None, 0.0) if share < _WORTH_SAYING else (largest, share)


def _holds(layer: Layer, share: float) -> str:
    return (
        f"the dense layer '{layer.name}' holds {figures.share(share)} of the parameters "
        f"({figures.count(layer.parameters)})"
    )


def _dense_convolutions(findings: Findings) -> _Reason | None:
    dense = [layer for layer in findings.layers if kinds.is_dense_convolution(layer.kind)]
    share = findings.time(dense)
    if share < _WORTH_SAYING:
        return None
    text = (
        f"{_names(dense)} take {figures.share(share)} of the time, with "
        f"{figures.share(findings.macs(dense))} of the MACs"
    )
    return _Reason(text, share)


def _input_size(findings: Findings) -> _Reason | None:
    share = _on_maps(findings)
    text = f"{_halved(findings)}; layers on maps take {figures.share(share)} of the time"
    return _Reason(text, share) if share >= _WORTH_SAYING else None


def _on_maps(findings: Findings) -> float:
    """The fraction of the time in layers that give a map larger than one position."""
    maps = [layer for layer in findings.layers if layer.output is not None and len(layer.output) == 3]
    return findings.time([layer for layer in maps if max((layer.output or ())[1:]) > 1])


def _halved(findings: Findings) -> str:
    channels, height, width = findings.input
    return f"halving the {channels}×{height}×{width} input to {height // 2}×{width // 2}"


def _batch_norms(findings: Findings) -> _Reason | None:
    norms = [layer for layer in findings.layers if layer.kind == kinds.BATCH_NORM]
    share = findings.time(norms)
    many = f"{len(norms)} BatchNorms, each a pass over memory of its own, take"
    text = f"{many if len(norms) > 1 else 'one BatchNorm takes'} {figures.share(share)} of the time"
    return _Reason(text, share) if share >= _WORTH_SAYING / 2 else None


def _matrix_work(findings: Findings) -> _Reason | None:
    work = [layer for layer in findings.layers if kinds.is_matrix_work(layer.kind)]
    share = findings.time(work)
    if share < _WORTH_SAYING:
        return None
    text = f"convolutions and dense layers take {figures.share(share)} of the time"
    depthwise = findings.time([layer for layer in work if layer.kind == kinds.DEPTHWISE])
    if depthwise > _WORTH_SAYING:
        text += f", {figures.share(depthwise)} in depthwise convolutions, which wait for memory"
    if not findings.has_int8_instructions:
        text += "; this CPU has no instructions for 8-bit products (VNNI)"
    return _Reason(text, share)


def _passes_over_memory(findings: Findings) -> _Reason | None:
    passes = [layer for layer in findings.layers if layer.kind in kinds.PASSES_OVER_MEMORY]
    share = findings.time(passes)
    text = (
        f"{len(passes)} activations, poolings and element-wise operations take {figures.share(share)} of the "
        "time for almost no MACs, and are merged with the layers around them"
    )
    return _Reason(text, share) if share >= _WORTH_SAYING else None


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


def _names(layers: Sequence[Layer]) -> str:
    """The kinds of one or more layers, the slowest first: "3×3 and 5×5 convolutions"."""
    times: dict[str, float] = {}
    for layer in layers:
        extent = layer.kind.partition(" ")[0]
        times[extent] = times.get(extent, 0.0) + layer.ms
    extents = sorted(times, key=lambda extent: -times[extent])
    listed = extents[0] if len(extents) == 1 else ", ".join(extents[:-1]) + " and " + extents[-1]
    return f"{listed} convolutions"


def _times(shape: tuple[int, ...]) -> str:
    return "×".join(str(extent) for extent in shape)


_REASONS: Mapping[str, Callable[[Findings], _Reason | None]] = {
    "global_average_pool": _flattened_head,
    "quantize_weights": _plain_head,
    "depthwise_separable": _dense_convolutions,
    "prune_channels": _dense_convolutions,
    "reduce_resolution": _input_size,
    "fuse_conv_bn": _batch_norms,
    **dict.fromkeys(pasting.INT8, _matrix_work),
    **dict.fromkeys(_ALTERNATIVES[-1], _passes_over_memory),
}
"""What each step goes for; the others have a prediction alone."""
