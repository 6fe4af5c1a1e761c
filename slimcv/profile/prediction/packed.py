"""A piece as Inductor runs it in a frozen graph: oneDNN's layer, its weights laid out for it beforehand.

Inductor generates code for what lies between these layers; they themselves need no compiler to be timed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from slimcv.profile.prediction.pieces import Piece, random_batch


def call_of(piece: Piece) -> Callable[[], Tensor]:
    """A call of the layer on one picture in channels_last, in float32."""
    module, batch = piece.module().eval().requires_grad_(False), random_batch(piece)
    if isinstance(module, nn.Linear):
        return _linear(module, batch)
    return _convolution(piece, module, batch.contiguous(memory_format=torch.channels_last))


def _convolution(piece: Piece, module: nn.Module, batch: Tensor) -> Callable[[], Tensor]:
    where = (piece.padding, piece.stride, piece.dilation, piece.groups)
    laid_out: Any = torch._C._nn.mkldnn_reorder_conv2d_weight
    weight = laid_out(module.get_parameter("weight").to_mkldnn(), *where, tuple(batch.shape))
    bias = module.get_parameter("bias")

    def call() -> Tensor:
        made: Tensor = torch.ops.mkldnn._convolution_pointwise(batch, weight, bias, *where, "none", [], "")
        return made

    return call


def _linear(module: nn.Linear, batch: Tensor) -> Callable[[], Tensor]:
    rows = batch.numel() // batch.shape[-1]
    weight = torch.ops.mkldnn._reorder_linear_weight(module.weight, rows)

    def call() -> Tensor:
        made: Tensor = torch.ops.mkldnn._linear_pointwise(batch, weight, module.bias, "none", [], "")
        return made

    return call
