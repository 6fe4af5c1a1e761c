"""Which layers bear 8 bits worst: what rounding the weights of one alone does to the network's outputs."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, fx, nn

from slimcv.measure import macs
from slimcv.step import InputSpec


@dataclass(frozen=True)
class Sensitivity:
    """A layer, how far its rounded weights move the outputs (norm over norm), and its share of the MACs."""

    name: str
    error: float
    mac_share: float


def relative_error(outputs: Tensor, expected: Tensor) -> float:
    """The norm of the difference over the norm of what is expected."""
    return float((outputs - expected).norm() / expected.norm().clamp(min=1e-12))


def rank(model: fx.GraphModule, pictures: Tensor, input: InputSpec, *, levels: int) -> list[Sensitivity]:
    """Every convolution and linear layer of a lifted graph, the most sensitive first.

    `pictures` are normalised (n, channels, height, width); weights are rounded to -levels-1 … levels steps of
    one scale for each output channel. `model` is as it was afterwards.
    """
    costs = {macs.layer_name(node): cost for node, cost in macs.by_node(model, input).items()}
    whole = max(1, sum(costs.values()))
    found = []
    with torch.no_grad():
        expected = model(pictures)
        for name, layer in model.named_modules():
            if not isinstance(layer, nn.Conv2d | nn.Linear):
                continue
            kept = layer.weight.clone()
            layer.weight.copy_(_rounded(kept, levels))
            error = relative_error(model(pictures), expected)
            layer.weight.copy_(kept)
            found.append(Sensitivity(name, error, costs.get(name, 0) / whole))
    return sorted(found, key=lambda one: one.error, reverse=True)


def to_leave(ranked: list[Sensitivity], *, error: float, mac_share: float) -> list[str]:
    """The fewest layers without which the others' errors come to `error` or less, adding in squares.

    Together they have `mac_share` of the MACs at most: a layer that has more is passed over.
    """
    left = sum(one.error**2 for one in ranked)
    names = []
    for one in ranked:
        if left <= error**2:
            break
        if one.mac_share <= mac_share:
            names.append(one.name)
            mac_share -= one.mac_share
            left -= one.error**2
    return names


def _rounded(weight: Tensor, levels: int) -> Tensor:
    largest = weight.abs().flatten(1).amax(dim=1).clamp(min=1e-12)
    step = (largest / levels).view(-1, *[1] * (weight.ndim - 1))
    return (weight / step).round().clamp(-levels - 1, levels) * step
