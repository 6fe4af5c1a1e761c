"""Static INT8 by Intel Neural Compressor's PT2E path: one graph for Inductor, ONNX Runtime and OpenVINO."""

from __future__ import annotations

import contextlib
import operator
import os
import sys
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx, nn

from slimcv.errors import NotApplicable
from slimcv.measure import allocator, macs
from slimcv.models import capture
from slimcv.runtimes import quiet as libraries
from slimcv.step import InputSpec

aten = torch.ops.aten

FULL = (-128, 127)

REDUCED = (-64, 63)
"""Weights of 7 bits: the sum of two products with 8-bit activations, at most 2·255·64, then fits 16 bits."""

CORRECTION_PICTURES = 32
"""Pictures that biases are corrected on: 16 to 256 differed by no more than noise on CIFAR ResNets."""

_LAYERS = (aten.conv2d.default, aten.linear.default)

_CONV2D_DEFAULTS: tuple[Any, ...] = (None, [1, 1], "valid", [1, 1], 1)
"""Bias, stride, padding, dilation and groups of `aten.conv2d.padding`."""

_SOURCES: dict[Any, Any] = {
    aten.conv2d: nn.Conv2d,
    aten.linear: nn.Linear,
    aten.add: operator.add,
    aten.add_: operator.add,
    aten.relu: nn.ReLU,
    aten.relu_: nn.ReLU,
    aten.relu6: nn.ReLU6,
    aten.relu6_: nn.ReLU6,
    aten.hardtanh: nn.Hardtanh,
    aten.hardtanh_: nn.Hardtanh,
    aten.hardswish: nn.Hardswish,
    aten.hardswish_: nn.Hardswish,
    aten.silu: nn.SiLU,
    aten.silu_: nn.SiLU,
    aten.leaky_relu: nn.LeakyReLU,
    aten.leaky_relu_: nn.LeakyReLU,
    aten.tanh: nn.Tanh,
    aten.gelu: nn.GELU,
}
"""What the quantiser looks for by the name of its source, and a lifted graph holds as operators."""


def quantize(
    model: fx.GraphModule,
    batches: Iterable[Tensor],
    *,
    input: InputSpec,
    reduce_range: bool,
    correct_bias: bool = True,
    in_float: Collection[str] = (),
) -> fx.GraphModule:
    """The INT8 graph of a lifted network: u8 activations, one scale a tensor; s8 weights, one a channel.

    `batches` are normalised calibration pictures (n, channels, height, width). Weights are stored as int8 at
    the names they had; running the graph eagerly computes on dequantised values, which is what exact INT8
    kernels compute. `model` is left as it is. `reduce_range` keeps weights to 7 bits (see `REDUCED`);
    `correct_bias` takes out of each bias what quantisation shifts the layer's mean by. Layers named in
    `in_float` are left alone.

    Raises NotApplicable where Neural Compressor finds nothing to quantise, or no picture was given.
    """
    quantizer = _neural_compressor()
    program = capture.exported(capture.deterministic(model), input)
    graph_module: Any = program.module(check_guards=False)
    graph_module._exported = True
    _spell_out_padding(graph_module)
    _veil(graph_module.graph, in_float)
    _name_sources(graph_module.graph)
    _retarget(graph_module.graph, _POOLS)
    graph_module.recompile()
    with quiet():
        prepared = quantizer.prepare(graph_module)
    if prepared is None:
        raise NotApplicable("Neural Compressor gave no graph back")
    if reduce_range:
        for observer in _observers(prepared, torch.int8):
            observer.quant_min, observer.quant_max = REDUCED
    weights = _weight_names(prepared.graph)
    pictures, means = _calibrate(prepared, batches)
    _retarget(prepared.graph, _NORMS)
    with quiet():
        converted = quantizer.convert(prepared, fold_quantize=True)
    if converted is None or not any(map(_dequantizes, converted.graph.nodes)):
        raise NotApplicable("Neural Compressor found nothing to quantise in this network")
    rebuilt = _rebuilt(converted, weights)
    if correct_bias:
        _correct_biases(rebuilt, pictures, means)
    return rebuilt


def layers_in_float(model: fx.GraphModule, input: InputSpec) -> dict[str, int]:
    """MACs by name of the layers and matrix products that do not take 8-bit integers on both sides."""
    return {
        macs.layer_name(node): cost
        for node, cost in macs.by_node(model, input).items()
        if not macs.on_integers(node)
    }


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep what Neural Compressor and torchao print, warn and log off the terminal.

    Loggers made before keep writing to the process's own stderr, so the file descriptors are turned away too.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    kept = [os.dup(1), os.dup(2)]
    try:
        with Path(os.devnull).open("wb") as nowhere:
            os.dup2(nowhere.fileno(), 1)
            os.dup2(nowhere.fileno(), 2)
        with libraries.quiet():
            yield
    finally:
        for number, descriptor in enumerate(kept, start=1):
            os.dup2(descriptor, number)
            os.close(descriptor)


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


def _neural_compressor() -> Any:
    with quiet():
        from neural_compressor.torch.algorithms.pt2e_quant.core import W8A8PT2EQuantizer
        from neural_compressor.torch.quantization import get_default_static_config

        return W8A8PT2EQuantizer(get_default_static_config())


def _name_sources(graph: fx.Graph) -> None:
    """Tell the quantiser which modules operators come from: it fuses conv → add → ReLU by these names alone.

    Without them residual sums stay in float and every map is written in both precisions.
    """
    for node in graph.nodes:
        if node.op == "call_function":
            source = None if node.target is aten.conv2d.padding else _SOURCES.get(_packet(node))
            node.meta["source_fn_stack"] = [(node.name, source or node.target)]


def _packet(node: fx.Node) -> Any:
    """The operator without its overload: `aten.add` for `aten.add.Tensor`."""
    return getattr(node.target, "overloadpacket", None)


def _spell_out_padding(model: fx.GraphModule) -> None:
    """Padding "same" and "valid" in numbers: only convolutions padded by numbers are quantised.

    One whose padding is not the same on both sides stays as it is, in float.
    """
    for node in model.graph.find_nodes(op="call_function", target=aten.conv2d.padding):
        data, weight, *rest = node.args
        given: list[Any] = [*rest, *_CONV2D_DEFAULTS[len(rest) :]]
        bias, stride, padding, dilation, groups = given
        kernel = weight.meta["val"].shape[2:]
        gaps = dilation if len(dilation) == 2 else [*dilation, *dilation]
        whole = [0, 0] if padding == "valid" else [gap * (k - 1) for gap, k in zip(gaps, kernel, strict=True)]
        if all(total % 2 == 0 for total in whole):
            node.target = aten.conv2d.default
            node.args = (data, weight, bias, stride, [total // 2 for total in whole], dilation, groups)


def _observers(prepared: fx.GraphModule, dtype: torch.dtype) -> list[Any]:
    """The observers of weights (int8) or activations (uint8)."""
    return [module for module in prepared.modules() if getattr(module, "dtype", None) is dtype]


def _dequantizes(node: Any) -> bool:
    return isinstance(node, fx.Node) and "dequantize_per" in str(node.target)


def _weight_names(graph: fx.Graph) -> dict[str, str]:
    """The name of the weight each convolution or linear reads, by node."""
    names = {}
    for node in graph.nodes:
        if node.target in _LAYERS:
            source = node.args[1]
            while source.op != "get_attr" and source.all_input_nodes:
                source = source.all_input_nodes[0]
            names[node.name] = str(source.target)
    return names


def _veiled(target: Any) -> Callable[..., Any]:
    """The same operator as a function that the quantiser does not know."""

    def call(*arguments: Any) -> Any:
        return target(*arguments)

    call.__name__ = call.__qualname__ = f"veiled_{target.overloadpacket.__name__}"
    return call


_POOLS = {pool: _veiled(pool) for pool in (aten.adaptive_avg_pool2d.default, aten.avg_pool2d.default)}
"""An average would be stored at the scale of what it averages, which leaves it a few of the 256 levels."""

_FLOAT_LAYERS = {layer: _veiled(layer) for layer in _LAYERS}
"""A convolution or linear layer that is to stay in float."""

_NORMS = {aten.batch_norm.default: _veiled(aten.batch_norm.default)}
"""Where the conversion sees a batch norm it traces 96 patterns of quantised training, which takes 20 s."""


def _veil(graph: fx.Graph, names: Collection[str]) -> None:
    """Hide the layers of these names, which their weights have, from the quantiser."""
    for node in graph.nodes:
        if node.target in _FLOAT_LAYERS and str(node.args[1].target).removesuffix(".weight") in names:
            node.target = _FLOAT_LAYERS[node.target]


def _retarget(graph: fx.Graph, targets: dict[Any, Any]) -> None:
    for node in graph.nodes:
        if node.op == "call_function" and node.target in targets:
            node.target = targets[node.target]


class _Layers(fx.Interpreter):
    """Runs a graph; the output of every convolution and linear goes on as what `visit` makes of it."""

    def __init__(self, model: fx.GraphModule, visit: Callable[[fx.Node, Tensor], Tensor]) -> None:
        super().__init__(model)
        self._visit = visit

    def run_node(self, n: fx.Node) -> Any:
        result = super().run_node(n)
        return self._visit(n, result) if n.target in _LAYERS else result


def _channel_means(result: Tensor) -> Tensor:
    """Of a map (n, channels, height, width) or of features (…, channels)."""
    channels = 1 if result.ndim == 4 else result.ndim - 1
    return result.mean([axis for axis in range(result.ndim) if axis != channels])


def _calibrate(prepared: fx.GraphModule, batches: Iterable[Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
    """Show the pictures to the observers: a range is the mean over the batches of their extremes.

    Neural Compressor's moving average gives the first of a few batches nearly all weight; weighting the k-th
    one by 1/k makes it the mean. Returns the first pictures and the channel means of every layer on them, by
    node. Raises NotApplicable without a batch.
    """
    first: list[Tensor] = []
    sums: dict[str, Tensor] = {}

    def remember(node: fx.Node, result: Tensor) -> Tensor:
        sums[node.name] = sums.get(node.name, 0) + len(batch) * _channel_means(result)
        return result

    recording = _Layers(prepared, remember)
    observers = _observers(prepared, torch.uint8)
    with torch.no_grad():
        for number, batch in enumerate(batches, start=1):
            for observer in observers:
                observer.averaging_constant = 1.0 / number
            if sum(map(len, first)) < CORRECTION_PICTURES:
                first.append(batch)
                recording.run(batch)
            else:
                prepared(batch)
    if not first:
        raise NotApplicable("there are no pictures to calibrate with")
    pictures = torch.cat(first)
    return pictures, {name: total / len(pictures) for name, total in sums.items()}


def _correct_biases(model: fx.GraphModule, pictures: Tensor, means: dict[str, Tensor]) -> None:
    """Shift every bias so that the layer's channel means are what they were in float.

    Nagel et al. 2019, "Data-Free Quantization Through Weight Equalization and Bias Correction", the empirical
    variant: layer by layer, each on inputs that come from corrected layers. A bias that several layers
    share is left alone.
    """
    shared = Counter(node.args[2].target for node in model.graph.nodes if _has_bias(node))
    added: dict[fx.Node, Tensor] = {}

    def correct(node: fx.Node, result: Tensor) -> Tensor:
        if node.name not in means:
            return result  # Left in float.
        shift = means[node.name] - _channel_means(result)
        if not _has_bias(node):
            added[node] = shift
        elif shared[node.args[2].target] == 1:  # type: ignore[union-attr, index]
            operator.attrgetter(node.args[2].target)(model).add_(shift)  # type: ignore[union-attr, arg-type]
        else:
            return result
        return result + (shift.view(-1, 1, 1) if result.ndim == 4 else shift)

    with torch.no_grad():
        _Layers(model, correct).run(pictures)
    for node, shift in added.items():
        _add_bias(model, node, shift)
    model.recompile()


def _has_bias(node: fx.Node) -> bool:
    return node.target in _LAYERS and len(node.args) > 2 and isinstance(node.args[2], fx.Node)


def _add_bias(model: fx.GraphModule, node: fx.Node, values: Tensor) -> None:
    name = f"{node.name}_bias"
    model.register_parameter(name, nn.Parameter(values))
    with model.graph.inserting_before(node):
        bias = model.graph.get_attr(name)
    node.args = (*node.args[:2], bias, *node.args[3:])


def _rebuilt(converted: fx.GraphModule, weights: dict[str, str]) -> fx.GraphModule:
    """The converted graph in lifted form: called plainly, no guards, weights at the names they had."""
    graph = converted.graph
    graph.owning_module = None
    graph.set_codegen(fx.graph.CodeGen())
    _retarget(graph, {veiled: target for target, veiled in (_POOLS | _NORMS | _FLOAT_LAYERS).items()})
    output = graph.output_node()
    output.args = (torch.utils._pytree.tree_leaves(output.args)[0],)
    names = _folded_names(graph, weights)
    parts: dict[str, Any] = {}
    for node in list(graph.nodes):
        if node.op == "call_module" and str(node.target).startswith("_guards_fn"):
            graph.erase_node(node)
        elif node.op == "call_module":
            parts[node.target] = converted.get_submodule(node.target)
        elif node.op == "get_attr":
            values = operator.attrgetter(node.target)(converted)
            node.target = names.get(node.target, node.target)
            parts[node.target] = values
        elif "dequantize_per_channel" in str(node.target):
            # Weights reduced to 7 bits are ordinary int8 to whoever runs the graph.
            node.args = (*node.args[:4], *FULL, *node.args[6:])
        node.meta.clear()
    graph.lint()
    rebuilt = fx.GraphModule(parts, graph)
    rebuilt.eval()
    return rebuilt


def _folded_names(graph: fx.Graph, weights: dict[str, str]) -> dict[str, str]:
    """Better names for folded weights, their scales and zero points, by the attribute that holds them."""
    names: dict[str, str] = {}
    for node in graph.nodes:
        if node.name in weights and "dequantize_per_channel" in str(node.args[1].target):
            folded = node.args[1].args[:3]
            for source, suffix in zip(folded, ("", "_scale", "_zero_point"), strict=True):
                better = weights[node.name] + suffix
                if better not in names.values():
                    names.setdefault(source.target, better)
    return names
