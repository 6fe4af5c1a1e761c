"""What each step makes of a network, in shapes alone: which layers go, and which come in their place."""

from __future__ import annotations

import copy as copying
import gc
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import fx, nn

from slimcv import surgery
from slimcv.errors import NotApplicable, SlimcvError
from slimcv.models import capture
from slimcv.profile import gathering
from slimcv.profile.layers import Layer
from slimcv.profile.prediction.pieces import Piece, piece_of
from slimcv.runtimes.inductor import require_compiler
from slimcv.step import Context, InputSpec, Variant

if TYPE_CHECKING:
    from slimcv.step import Step

FLOAT_BYTES = 4
_MOST_DECOMPOSED = 4096 * 4096
"""Weights of a layer whose singular values are not looked for, which would take seconds."""


@dataclass(frozen=True)
class Network:
    """A network in eval mode with its layers as timed in `runtime`, by node; shapes are for one picture."""

    variant: Variant
    layers: Mapping[str, Layer]
    shapes: Mapping[str, tuple[int, ...]]
    runtime: str
    weight_bytes: int

    @property
    def model(self) -> fx.GraphModule:
        """The lifted graph."""
        return self.variant.model

    @cached_property
    def pieces(self) -> dict[str, Piece]:
        """The layers that multiply, by node."""
        return pieces_of(self.model, self.shapes)

    @cached_property
    def stored(self) -> dict[str, Piece]:
        """The same, those that share a module once, at its first call: what is held and written to files."""
        modules = {node.name: str(node.target) for node in self.model.graph.nodes}
        first = {modules[name]: name for name in reversed(self.pieces)}
        return {name: piece for name, piece in self.pieces.items() if first[modules[name]] == name}


@dataclass(frozen=True)
class Change:
    """By node, what stands in the place of a layer (nothing where it goes), and how others grow or shrink.

    `scales` are for the times of layers that are no pieces. In `runtime` everything runs in the end, on
    integers with `int8`. With `trained` the layers stay as they are and are trained. `note` says what the
    prediction rests on, or what must come with the step.
    """

    pieces: Mapping[str, tuple[Piece, ...]] = field(default_factory=dict)
    scales: Mapping[str, float] = field(default_factory=dict)
    runtime: str | None = None
    int8: bool = False
    trained: bool = False
    weight_bytes: int | None = None
    note: str = ""


def pieces_of(model: fx.GraphModule, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Piece]:
    """Every convolution and linear layer that is a module, by node."""
    found = {}
    for node in model.graph.nodes:
        if node.op == "call_module" and node.all_input_nodes:
            shape = shapes.get(node.all_input_nodes[0].name, ())
            piece = piece_of(model.get_submodule(str(node.target)), shape)
            if piece is not None:
                found[node.name] = piece
    return found


def change_of(name: str, step: Step, network: Network) -> Change:
    """What a step of this name makes of the network.

    Raises NotApplicable, with the reason, where the step has nothing to do or cannot be foretold.
    """
    rule = _RULES.get(name)
    if rule is None:
        raise NotApplicable("only trying it tells")
    if network.variant.precision == "int8" and name not in _EXPORTS:
        raise NotApplicable("the network is INT8 already")
    return rule(step, network)


def _depthwise_separable(step: Any, network: Network) -> Change:
    found = surgery.convertible(
        network.model,
        rank=step.rank,
        min_channels=step.min_channels,
        include=step.include,
        exclude=step.exclude,
    )
    pieces = {}
    for node, _ in found:
        dense = network.pieces.get(node.name)
        if dense is not None:
            taps = dense.kernel[0] * dense.kernel[1]
            rank = min(step.rank, taps)
            depthwise = replace(dense, outputs=dense.inputs, groups=dense.inputs)
            shape = (rank * dense.inputs, *depthwise.output_shape[1:])
            pointwise = Piece(rank * dense.inputs, dense.outputs, shape, kernel=(1, 1))
            pieces[node.name] = (*[depthwise] * rank, pointwise)
    if not pieces:
        raise NotApplicable("no dense convolution takes fewer MACs as depthwise + pointwise")
    return Change(pieces, note="its accuracy must be repaired by training")


def _low_rank(step: Any, network: Network) -> Change:
    pieces = {}
    for node, layer in surgery.factorisable(
        network.model, include=step.include, exclude=step.exclude, convolutions=step.convolutions
    ):
        piece = network.pieces.get(node.name)
        if piece is None or piece.weights > _MOST_DECOMPOSED:
            continue
        rank = int(step.rank or _rank(layer, step.energy))
        rank = -(-rank // step.round_to) * step.round_to
        if rank * (piece.inputs + piece.outputs) <= (1 - step.min_gain) * piece.weights:
            first = replace(piece, outputs=rank)
            pieces[node.name] = (first, Piece(rank, piece.outputs, first.output_shape, kernel=_ones(piece)))
    if not pieces:
        raise NotApplicable("no layer's weights have a rank low enough")
    return Change(pieces, note="ranks from the weights alone; on pictures they are often lower")


def _rank(layer: nn.Module, energy: float) -> int:
    """How many singular values hold so much of the squares' sum, from the smaller of the Gram matrices."""
    weight = layer.get_parameter("weight").detach().flatten(1)
    tall = weight if weight.shape[0] >= weight.shape[1] else weight.t()
    squares = torch.linalg.eigvalsh(tall.t() @ tall).flip(0).clamp(min=0)
    kept = torch.cumsum(squares, 0) / squares.sum().clamp(min=1e-30)
    return int((kept < energy).sum()) + 1


def _prune_channels(step: Any, network: Network) -> Change:
    share = step.latency or step.macs
    kept: float = max(math.sqrt(share), step.min_kept)
    names = list(network.pieces)
    if len(names) < 2:
        raise NotApplicable("there is no channel between two layers to cut")

    def fewer(channels: int) -> int:
        unit = surgery.multiple_for(channels, step.multiples)
        return min(channels, max(unit, round(kept * channels / unit) * unit))

    pieces = {}
    for name, piece in network.pieces.items():
        inputs = piece.inputs if name == names[0] else fewer(piece.inputs)
        outputs = piece.outputs if name == names[-1] else fewer(piece.outputs)
        groups = inputs if piece.groups == piece.inputs else piece.groups
        if piece.groups not in (1, piece.inputs):
            continue
        outputs = groups * (piece.outputs // piece.groups) if groups > 1 else outputs
        shape = (*piece.shape[:-1], inputs) if piece.is_linear else (inputs, *piece.shape[1:])
        if (inputs, outputs) != (piece.inputs, piece.outputs):
            pieces[name] = (replace(piece, inputs=inputs, outputs=outputs, groups=groups, shape=shape),)
    others = {name: kept for name in network.layers if name not in network.pieces}
    return Change(pieces, others, note="the same share of every layer's channels; training follows")


def _reduce_resolution(step: Any, network: Network) -> Change:
    small = step.smaller(network.variant.input)
    shapes = _shapes_at(network.model, small)
    step.check_maps(network.shapes, shapes, input=small)
    pieces = {
        name: (piece,)
        for name, piece in pieces_of(network.model, shapes).items()
        if piece != network.pieces.get(name)
    }
    others = {
        name: prod(shapes[name]) / max(prod(network.shapes[name]), 1)
        for name in network.layers
        if name not in network.pieces and name in shapes and name in network.shapes
    }
    return Change(pieces, others, note=f"pictures of {small}; training follows")


def _shapes_at(model: fx.GraphModule, input: InputSpec) -> dict[str, tuple[int, ...]]:
    """The shapes by node for one picture of that size: running it costs less than following shapes alone."""
    try:
        with torch.inference_mode():
            return capture.followed(model, torch.zeros(1, *input.shape))
    except capture.FAULTS as error:
        raise NotApplicable(f"the network does not run at {input}") from error


def _global_average_pool(step: Any, network: Network) -> Change:
    head = surgery.find_head(network.model, dict(network.shapes))
    dense = network.pieces.get(head.dense.name)
    if dense is None:
        raise NotApplicable("the dense layer is of a kind that cannot be foretold")
    pieces: dict[str, tuple[Piece, ...]] = {}
    scales: dict[str, float] = {}
    outputs = dense.outputs
    if step.head == "collapse":
        try:
            behind = surgery.chain_to_output(head.dense)
        except NotApplicable:
            behind = []
        for node in behind:
            if node.name in network.pieces:
                outputs = network.pieces[node.name].outputs
                pieces[node.name] = ()
            else:
                scales[node.name] = 0.0
    pieces[head.dense.name] = (Piece(head.channels, outputs, (head.channels,)),)
    return Change(pieces, scales, note="makes smaller pictures possible")


def _fuse_conv_bn(step: Any, network: Network) -> Change:
    """What the step itself does to a copy of the graph: it depends on the values of the norms too."""
    model = _sharing_copy(network.model)
    before = list(model.graph.nodes)
    step.apply(replace(network.variant, model=model), _no_context(network.variant))
    left = set(model.graph.nodes)
    gone = {node.name: 0.0 for node in before if node not in left and node.name in network.layers}
    exact = "exact, no training" if step.lossless else "inexact at the border: training follows"
    weight_bytes = gathering.weight_bytes(model)
    # Nodes refer to each other: else the folded weights would stay beside what is built for the next steps.
    del model, before, left
    gc.collect()
    return Change(scales=gone, weight_bytes=weight_bytes, note=exact)


def _sharing_copy(model: fx.GraphModule) -> fx.GraphModule:
    """A graph with modules of its own that hold the same tensors, to be replaced and never written to."""
    shared = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}
    return copying.deepcopy(model, shared)


def _int8(runtime: str | None) -> Callable[[Any, Network], Change]:
    def rule(step: Any, network: Network) -> Change:  # noqa: ARG001
        if not network.pieces:
            raise NotApplicable("there is nothing to quantise")
        weights = sum(piece.weights for piece in network.stored.values())
        where = runtime or (network.runtime if network.runtime in _IN_INTEGERS else "openvino")
        left = network.weight_bytes - (FLOAT_BYTES - 1) * weights
        return Change(runtime=where, int8=True, weight_bytes=left, note="calibrated on pictures, no training")

    return rule


def _export(runtime: str) -> Callable[[Any, Network], Change]:
    def rule(step: Any, network: Network) -> Change:  # noqa: ARG001
        if network.runtime == runtime:
            raise NotApplicable(f"these are the times of {runtime} already")
        return Change(runtime=runtime, note="the same outputs")

    return rule


def _compiled(runtime: str) -> Callable[[Any, Network], Change]:
    """Machine code made by Inductor: for a package (`aotinductor`) the same as for the step `compile`."""

    def rule(step: Any, network: Network) -> Change:
        try:
            require_compiler()
        except SlimcvError as error:
            raise NotApplicable("there is no C++ compiler") from error
        if network.runtime == "inductor":
            raise NotApplicable("these are the times of Inductor already")
        if network.variant.precision != "fp32" or getattr(step, "precision", "fp32") != "fp32":
            raise NotApplicable("layers of Inductor are timed in fp32 alone")
        return Change(runtime=runtime, note="the same outputs; compiling takes from seconds to minutes")

    return rule


def _finetune(step: Any, network: Network) -> Change:  # noqa: ARG001
    """Every layer is trained, none is changed."""
    if not network.pieces:
        raise NotApplicable("there is no convolution or linear layer to train")
    return Change(trained=True, note="no faster and no smaller: it repairs accuracy")


def _stored(share: Callable[[Any], float], words: str) -> Callable[[Any, Network], Change]:
    """A step that changes nothing but what the packed file takes: `share` of each weight's bytes."""

    def rule(step: Any, network: Network) -> Change:
        weights = FLOAT_BYTES * sum(piece.weights for piece in network.stored.values())
        left = round(network.weight_bytes - weights * (1 - share(step)))
        return Change(weight_bytes=left, note=words)

    return rule


def _ones(piece: Piece) -> tuple[int, int]:
    return (0, 0) if piece.is_linear else (1, 1)


def _no_context(variant: Variant) -> Context:
    return Context(teacher=variant, data=None, workdir=Path(), threads=1, train_threads=1)


_IN_INTEGERS = ("openvino", "onnxruntime")
_PACKED = "in a packed file (slimcv pack); no faster"
_EXPORTS = {"export_openvino": "openvino", "export_onnx": "onnxruntime"}
_RULES: dict[str, Callable[[Any, Network], Change]] = {
    "depthwise_separable": _depthwise_separable,
    "low_rank": _low_rank,
    "prune_channels": _prune_channels,
    "reduce_resolution": _reduce_resolution,
    "global_average_pool": _global_average_pool,
    "fuse_conv_bn": _fuse_conv_bn,
    "quantize_int8": _int8(None),
    "export_nncf": _int8("openvino"),
    "export_onnx_int8": _int8("onnxruntime"),
    "quantize_weights": _stored(lambda step: step.bits / 32, "8-bit files, narrower ones " + _PACKED),
    "prune_weights": _stored(lambda step: 1 - step.sparsity + 1 / 32, _PACKED),
    "cluster_weights": _stored(lambda step: math.ceil(math.log2(step.clusters)) / 32, _PACKED),
    "finetune": _finetune,
    "compile": _compiled("inductor"),
    "export_aotinductor": _compiled("aotinductor"),
    **{name: _export(runtime) for name, runtime in _EXPORTS.items()},
}
