"""A layer in 8 bits: with its rounding in floats, and as a real INT8 kernel to time."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from slimcv.errors import NotApplicable
from slimcv.sensitivity.walk import Layer

_LEVELS = 255

onednn = torch.ops.onednn


class Rounded(nn.Module):
    """The layer on a rounded input with rounded weights, as exact INT8 kernels compute it.

    Weights are symmetric with one scale for each output channel, -levels-1 … levels; the input is unsigned
    with one scale, whose range is the mean over the batches `given` of their extremes (slimcv.quantization
    calibrates in the same way).
    """

    def __init__(self, layer: Layer, given: Sequence[Tensor], *, levels: int) -> None:
        super().__init__()
        self.input_scale, self.input_zero = _range(given)
        weight = layer.weight.detach()
        self.scale = weight.abs().flatten(1).amax(dim=1).clamp(min=1e-12) / levels
        along = self.scale.view(-1, *[1] * (weight.ndim - 1))
        rounded = (weight / along).round().clamp(-levels - 1, levels)
        self.integers = rounded.to(torch.int8)
        self.layer = copy.deepcopy(layer).eval()
        self.layer.weight.data.copy_(rounded * along)

    def forward(self, x: Tensor) -> Tensor:
        """What the layer gives with integers on both sides."""
        rounded = torch.fake_quantize_per_tensor_affine(x, self.input_scale, self.input_zero, 0, _LEVELS)
        found: Tensor = self.layer(rounded)
        return found

    @torch.no_grad()
    def kernel(self, x: Tensor) -> Callable[[], Any]:
        """A call of oneDNN's INT8 kernel on this input, from integers to integers.

        Raises NotApplicable where there is none for such a layer, or torch has none.
        """
        given = (x / self.input_scale + self.input_zero).round().clamp(0, _LEVELS).to(torch.uint8)
        output_scale, output_zero = _range([self(x)])
        arguments = (given, self.input_scale, self.input_zero)
        zeros = torch.zeros(len(self.scale), dtype=torch.int64)
        after: tuple[Any, ...] = (output_scale, output_zero, torch.uint8, "none", [], "")
        layer, kernel = self.layer, "qconv2d_pointwise"
        rest: tuple[Any, ...] = (self.scale, zeros, layer.bias)
        try:
            if isinstance(layer, nn.Linear):
                kernel, packed = "qlinear_pointwise", onednn.qlinear_prepack(self.integers, list(x.shape))
            elif isinstance(layer.padding, str) or layer.padding_mode != "zeros":
                raise NotApplicable("PyTorch's INT8 kernels pad with zeros, by numbers")
            else:
                places = (list(layer.stride), list(layer.padding), list(layer.dilation), layer.groups)
                scales = (self.scale, self.input_scale, self.input_zero)
                packed = onednn.qconv_prepack(self.integers, *scales, *places, list(x.shape))
                rest = (*rest, *places)
            operator = getattr(onednn, kernel)
            operator(*arguments, packed, *rest, *after)
        except (RuntimeError, AttributeError) as error:
            raise NotApplicable("this PyTorch has no INT8 kernel for the layer") from error
        return lambda: operator(*arguments, packed, *rest, *after)


def _range(batches: Sequence[Tensor]) -> tuple[float, int]:
    """Scale and zero point of the unsigned integers of these values; zero is one of them."""
    low = min(0.0, sum(float(batch.min()) for batch in batches) / len(batches))
    high = max(0.0, sum(float(batch.max()) for batch in batches) / len(batches))
    scale = max((high - low) / _LEVELS, 1e-12)
    return scale, round(-low / scale)
