"""What the pictures of the calibration tell: the range of every map, and the channel means of every layer."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, fx

from slimcv.errors import NotApplicable
from slimcv.quantization.graph import CONVOLUTIONS, LAYERS, WEIGHTED

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from slimcv.data import Split
    from slimcv.step import Context, Variant

CORRECTION_PICTURES = 32
"""Pictures that biases are corrected on: 16 to 256 differed by no more than noise on CIFAR ResNets."""


def sample(split: Split, count: int, seed: int) -> NDArray[np.intp]:
    """Positions of so many pictures, or of all where there are fewer."""
    return np.random.default_rng(seed).permutation(len(split))[:count]


def pictures_for(variant: Variant, context: Context) -> Split:
    """What a network in floats is calibrated on. Raises NotApplicable where it is INT8 or there are none."""
    if variant.precision == "int8":
        raise NotApplicable("the network is INT8 already")
    if context.data is None or not len(context.data.train):
        raise NotApplicable("needs data")
    return context.data.train


def pixels(variant: Variant, context: Context, count: int) -> NDArray[np.uint8]:
    """The pictures of `sample` at the input's size, uint8 (n, height, width, channels).

    Raises NotApplicable as `pictures_for` does.
    """
    split, input = pictures_for(variant, context), variant.input
    chosen = np.sort(sample(split, count, context.seed))
    return np.asarray(split.pixels(input.height, input.width, input.channels)[chosen])


def observers(prepared: fx.GraphModule, dtype: torch.dtype) -> list[Any]:
    """The observers of weights (int8) or activations (uint8)."""
    return [module for module in prepared.modules() if getattr(module, "dtype", None) is dtype]


class Layers(fx.Interpreter):
    """Runs a graph; the output of every convolution and linear goes on as what `visit` makes of it."""

    def __init__(self, model: fx.GraphModule, visit: Callable[[fx.Node, Tensor], Tensor]) -> None:
        super().__init__(model)
        self._visit = visit

    def run_node(self, n: fx.Node) -> Any:
        """A node's result, visited where it is a layer's."""
        result = super().run_node(n)
        return self._visit(n, result) if n.target in WEIGHTED else result


def channel_means(result: Tensor, *, convolution: bool) -> Tensor:
    """Of what a convolution gives (n, channels, height, width), or a linear layer (…, channels).

    Four axes tell nothing: linear layers on maps (n, height, width, channels) give as many.
    """
    channels = 1 if convolution else result.ndim - 1
    return result.mean([axis for axis in range(result.ndim) if axis != channels])


def calibrate(prepared: fx.GraphModule, batches: Iterable[Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
    """Show the pictures to the observers: a range is the mean over the batches of their extremes.

    Neural Compressor's moving average gives the first of a few batches nearly all weight; weighting the k-th
    one by 1/k makes it the mean. Returns the first pictures and the channel means of every layer on them, by
    node. Raises NotApplicable without a batch.
    """
    first: list[Tensor] = []
    sums: dict[str, Tensor] = {}

    def remember(node: fx.Node, result: Tensor) -> Tensor:
        if node.target in LAYERS:  # Others stay in float.
            means = channel_means(result, convolution=node.target in CONVOLUTIONS)
            sums[node.name] = sums.get(node.name, 0) + len(batch) * means
        return result

    recording = Layers(prepared, remember)
    activations = observers(prepared, torch.uint8)
    with torch.no_grad():
        for number, batch in enumerate(batches, start=1):
            for observer in activations:
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
