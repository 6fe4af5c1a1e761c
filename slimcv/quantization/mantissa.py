"""Scales and biases with fewer bits of mantissa: what is zero in all of them takes next to no bytes, packed.

A scale that is off by 1/512 moves its channel's weights by far less than their rounding to 8 bits does, and
bias correction and training come after it.
"""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch import Tensor, fx

from slimcv.quantization.calibration import observers
from slimcv.quantization.graph import WEIGHTED

WHOLE = 23
"""Bits of a float32's mantissa, without the one that is always set; bfloat16 has 7."""


def shortened(values: Tensor, bits: int) -> Tensor:
    """The float32 `values` to the nearest with `bits` of mantissa, 1 to 23, ties to even."""
    dropped = WHOLE - bits
    if dropped <= 0:
        return values.clone()
    raw = values.contiguous().view(torch.int32)
    half = (1 << (dropped - 1)) - 1 + ((raw >> dropped) & 1)
    found = (((raw + half) >> dropped) << dropped).view(torch.float32)
    return torch.where(values.isfinite(), found, values)


def _next_above(values: Tensor, bits: int) -> Tensor:
    """The smallest numbers with `bits` of mantissa that are not below these positive ones."""
    found = shortened(values, bits)
    return torch.where(found < values, shortened(values * (1 + 2.0 ** -(bits + 1)), bits), found)


def shorten_scales(prepared: fx.GraphModule, bits: int) -> None:
    """Let the observers of weights, which have seen them, tell ranges whose scales have `bits` of mantissa.

    The integers are then rounded at those very scales, which are not below what the largest weight needs.
    """
    for observer in observers(prepared, torch.int8):
        # A scale is the largest magnitude over this number, whose few bits leave the product exact.
        steps = (observer.quant_max - observer.quant_min) / 2
        largest = torch.maximum(-observer.min_val, observer.max_val)
        widest = _next_above(largest / steps, bits) * steps
        observer.min_val.copy_(-widest)
        observer.max_val.copy_(widest)


@torch.no_grad()
def shorten_biases(model: fx.GraphModule, bits: int) -> None:
    """Give the biases of all convolutions and linear layers `bits` of mantissa, in place."""
    for node in model.graph.nodes:
        if node.target in WEIGHTED and len(node.args) > 2 and isinstance(node.args[2], fx.Node):
            bias: Any = operator.attrgetter(str(node.args[2].target))(model)
            bias.copy_(shortened(bias.detach(), bits))
