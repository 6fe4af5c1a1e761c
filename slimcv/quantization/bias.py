"""Biases that take back what quantisation shifts the means of layers by."""

from __future__ import annotations

import operator
from collections import Counter

import torch
from torch import Tensor, fx, nn

from slimcv.quantization.calibration import Layers, channel_means
from slimcv.quantization.graph import CONVOLUTIONS, WEIGHTED


def correct_biases(model: fx.GraphModule, pictures: Tensor, means: dict[str, Tensor]) -> None:
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
        convolution = node.target in CONVOLUTIONS
        shift = means[node.name] - channel_means(result, convolution=convolution)
        if not _has_bias(node):
            added[node] = shift
        elif shared[node.args[2].target] == 1:  # type: ignore[union-attr, index]
            operator.attrgetter(node.args[2].target)(model).add_(shift)  # type: ignore[union-attr, arg-type]
        else:
            return result
        return result + (shift.view(-1, 1, 1) if convolution else shift)

    with torch.no_grad():
        Layers(model, correct).run(pictures)
    for node, shift in added.items():
        _add_bias(model, node, shift)
    model.recompile()


def _has_bias(node: fx.Node) -> bool:
    return node.target in WEIGHTED and len(node.args) > 2 and isinstance(node.args[2], fx.Node)


def _add_bias(model: fx.GraphModule, node: fx.Node, values: Tensor) -> None:
    name = f"{node.name}_bias"
    model.register_parameter(name, nn.Parameter(values))
    with model.graph.inserting_before(node):
        bias = model.graph.get_attr(name)
    node.args = (*node.args[:2], bias, *node.args[3:])
