"""Channels of like size: what one convolution makes smaller the next layer makes larger again.

One scale a tensor serves all channels of a map when it is quantised, so a channel whose values are small next
to its neighbours' keeps a few of the 256 levels; and one scale serves all weights of an output, so that those
beside the large ones that read such a channel are lost. Between two layers with nothing but ReLU or pooling
in between, each channel can be divided by a number of its own and multiplied by it again (Nagel et al. 2019,
"Data-Free Quantization Through Weight Equalization and Bias Correction", section 4.1). The number is a
compromise between the channel's values and the weights that read it (Xiao et al. 2023, "SmoothQuant", with
its alpha of a half). A depthwise layer has a scale for each channel, so that nothing is paid there. Dense
convolutions are left out as readers: behind depthwise ones, with weights of 7 bits, the compromise doubled
the error of a network's outputs (from 9.6 to 20 % of their norm).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn

from slimcv.models import capture
from slimcv.step import InputSpec
from slimcv.surgery.graph import COPIES, DROPOUT_MODULES, DROPOUTS, RESHAPES, Shapes, calls

aten = torch.ops.aten

HOMOGENEOUS = frozenset(
    {
        aten.relu.default,
        aten.relu_.default,
        aten.leaky_relu.default,
        aten.leaky_relu_.default,
        aten.max_pool2d.default,
        aten.avg_pool2d.default,
        aten.adaptive_avg_pool2d.default,
        aten.mean.dim,
        *COPIES,
        *DROPOUTS,
    }
)
"""Operators that give s·x for s·x, channel by channel, where s is above zero."""

_HOMOGENEOUS_MODULES = (
    nn.ReLU, nn.LeakyReLU, nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.Identity, nn.Flatten,
    *DROPOUT_MODULES,
)  # fmt: skip

_SMALLEST = 1e-6
"""Channels below this share of the largest one are dead, and left as they are."""


@dataclass(frozen=True)
class Pair:
    """A convolution, the layer that reads it, and the node whose output that one reads."""

    first: nn.Conv2d
    second: nn.Conv2d | nn.Linear
    between: fx.Node

    @property
    def alone(self) -> bool:
        """The second one reads each channel by itself, as depthwise convolutions do."""
        return isinstance(self.second, nn.Conv2d)


def equalize(model: fx.GraphModule, input: InputSpec, batches: Iterable[Tensor]) -> int:
    """Scale the channels between convolutions of a lifted graph, in place; how many maps were scaled.

    `batches` are normalised pictures (n, channels, height, width) that show how large each channel is. The
    outputs stay what they were, up to rounding.
    """
    found = pairs(model, input)
    if not found:
        return 0
    largest = _largest(model, [pair.between for pair in found], batches)
    with torch.no_grad():
        for pair in found:
            _scale(pair, largest[pair.between])
    return len(found)


def pairs(model: fx.GraphModule, input: InputSpec) -> list[Pair]:
    """Convolutions that feed one depthwise or linear layer alone, through what leaves a scale as it is."""
    shapes = capture.shapes(model, input)
    convolutions = dict(calls(model, nn.Conv2d))
    layers: dict[fx.Node, nn.Conv2d | nn.Linear] = {**convolutions, **dict(calls(model, nn.Linear))}
    found = []
    for node, first in convolutions.items():
        between = node
        while len(between.users) == 1:
            (following,) = between.users
            if following in layers:
                if _reads_channels(layers[following], shapes[between.name]):
                    found.append(Pair(first, layers[following], between))
                break
            if not _homogeneous(model, following, shapes=shapes):
                break
            if shapes[following.name][:2] != shapes[node.name][:2]:
                break
            between = following
    return found


def _reads_channels(layer: nn.Conv2d | nn.Linear, given: tuple[int, ...]) -> bool:
    """Each input of the layer is one whole channel; a linear one reads the last axis, whatever that is."""
    if isinstance(layer, nn.Linear):
        return len(given) == 2
    return layer.in_channels == layer.groups


def _homogeneous(model: fx.GraphModule, node: fx.Node, *, shapes: Shapes) -> bool:
    """Whether the node gives s·x for s·x channel by channel; means do over the axes behind the channels."""
    if node.target == aten.mean.dim:
        dims: Any = node.args[1] or ()
        return all(dim % len(shapes[node.all_input_nodes[0].name]) >= 2 for dim in dims)
    if node.op == "call_module":
        return isinstance(model.get_submodule(str(node.target)), _HOMOGENEOUS_MODULES)
    return node.op == "call_function" and node.target in HOMOGENEOUS | RESHAPES


def _scale(pair: Pair, largest: Tensor) -> None:
    """Divide the first one's channels and multiply what reads them."""
    read = pair.second.weight
    wanted = largest.clone()
    if not pair.alone:
        weights = read.abs().amax(dim=0)
        wanted = (largest / weights.clamp(min=_SMALLEST * float(weights.max()))).sqrt()
    alive = largest > _SMALLEST * float(largest.max())
    middle = wanted[alive].log().mean().exp() if bool(alive.any()) else torch.ones(())
    scale = torch.where(alive, wanted / middle, torch.ones_like(wanted))
    pair.first.weight.div_(scale.view(-1, 1, 1, 1))
    if pair.first.bias is not None:
        pair.first.bias.div_(scale)
    read.mul_(scale.repeat_interleave(len(read) // len(scale)).view(-1, 1, 1, 1) if pair.alone else scale)


class _Extremes(fx.Interpreter):
    """Runs a graph and keeps the largest value of each channel of some nodes, the mean over the batches."""

    def __init__(self, model: fx.GraphModule, nodes: Iterable[fx.Node]) -> None:
        super().__init__(model)
        self.sums: dict[fx.Node, Any] = dict.fromkeys(nodes, 0.0)

    def run_node(self, n: fx.Node) -> Any:
        result = super().run_node(n)
        if n in self.sums:
            rows = result.abs().flatten(2) if result.ndim > 2 else result.abs().unsqueeze(2)
            self.sums[n] = self.sums[n] + rows.amax(dim=(0, 2))
        return result


def _largest(
    model: fx.GraphModule, nodes: Iterable[fx.Node], batches: Iterable[Tensor]
) -> dict[fx.Node, Tensor]:
    recording, count = _Extremes(model, nodes), 0
    with torch.no_grad():
        for batch in batches:
            recording.run(batch)
            count += 1
    return {node: total / max(1, count) for node, total in recording.sums.items()}
