"""Convolutions and linear layers by their shapes alone, made anew to be timed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

_OPSET, _IR = 18, 10


@dataclass(frozen=True)
class Piece:
    """A layer without its weights; `shape` is that of one input, (C, H, W) or (…, features).

    A linear layer has the kernel (0, 0). Time does not depend on what the weights are.
    """

    inputs: int
    outputs: int
    shape: tuple[int, ...]
    kernel: tuple[int, int] = (0, 0)
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1

    @property
    def is_linear(self) -> bool:
        """Whether it is no convolution."""
        return self.kernel == (0, 0)

    @property
    def weights(self) -> int:
        """Values in its weight; a bias is nothing beside them."""
        taps = 1 if self.is_linear else self.kernel[0] * self.kernel[1]
        return self.inputs // self.groups * self.outputs * taps

    @property
    def macs(self) -> int:
        """Multiply-accumulates of one picture."""
        return self.weights * int(np.prod(self.output_shape)) // self.outputs

    @property
    def output_shape(self) -> tuple[int, ...]:
        """Of one picture."""
        if self.is_linear:
            return (*self.shape[:-1], self.outputs)
        sides = zip(self.shape[1:], self.kernel, self.stride, self.padding, self.dilation, strict=True)
        return (self.outputs, *((n + 2 * p - d * (k - 1) - 1) // s + 1 for n, k, s, p, d in sides))

    def module(self) -> nn.Module:
        """The layer with small random weights."""
        if self.is_linear:
            return nn.Linear(self.inputs, self.outputs)
        return nn.Conv2d(
            self.inputs,
            self.outputs,
            self.kernel,
            stride=self.stride,
            padding=self.padding,
            dilation=self.dilation,
            groups=self.groups,
        )

    def onnx(self, *, int8: bool) -> bytes:
        """The layer as an ONNX model from `input` to `logits`; its 8-bit form has integers on both sides."""
        from onnx import TensorProto, helper

        integers = _Integers()
        node_inputs = ["input", "at0_weight"]
        weight = 0.05 * np.random.default_rng(0).standard_normal(self._weight_shape, np.float32)
        if int8:
            node_inputs = [integers.through("input"), integers.weight(weight)]
            initialisers = integers.initialisers
        else:
            initialisers = [
                helper.make_tensor("at0_weight", TensorProto.FLOAT, weight.shape, weight.tobytes(), raw=True)
            ]
        made = "at0_0out0" if int8 else "logits"
        operator: dict[str, Any] = {} if self.is_linear else {
            "strides": self.stride, "pads": self.padding * 2, "dilations": self.dilation,
            "group": self.groups, "kernel_shape": self.kernel,
        }  # fmt: skip
        kind = "MatMul" if self.is_linear else "Conv"
        nodes = [*integers.nodes, helper.make_node(kind, node_inputs, [made], name="at0_0", **operator)]
        if int8:
            after = _Integers()
            after.through(made, result="logits", prefix="out")
            nodes += after.nodes
            initialisers = [*initialisers, *after.initialisers]
        graph = helper.make_graph(
            nodes,
            "piece",
            [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["batch", *self.shape])],
            [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", *self.output_shape])],
            initialisers,
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=_IR)
        serialised: bytes = model.SerializeToString()
        return serialised

    @property
    def _weight_shape(self) -> tuple[int, ...]:
        if self.is_linear:
            return (self.inputs, self.outputs)
        return (self.outputs, self.inputs // self.groups, *self.kernel)


def piece_of(module: nn.Module | None, shape: tuple[int, ...]) -> Piece | None:
    """The piece that a module is on an input of this shape (with the batch); None for other layers."""
    if isinstance(module, nn.Linear):
        return Piece(module.in_features, module.out_features, shape[1:])
    if type(module) is not nn.Conv2d or len(shape) != 4:
        return None
    top = module._reversed_padding_repeated_twice
    return Piece(
        module.in_channels,
        module.out_channels,
        shape[1:],
        kernel=_pair(module.kernel_size),
        stride=_pair(module.stride),
        padding=(top[2], top[0]),
        dilation=_pair(module.dilation),
        groups=module.groups,
    )


def _pair(values: tuple[int, ...]) -> tuple[int, int]:
    return (values[0], values[-1])


class _Integers:
    """Nodes that take values to 8-bit integers and back (QuantizeLinear, DequantizeLinear)."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.initialisers: list[Any] = []

    def through(self, name: str, *, result: str = "input_integers", prefix: str = "in") -> str:
        """An activation as unsigned integers."""
        from onnx import helper

        scale, zero = self._constants(prefix, np.float32(0.03), np.uint8(128))
        self.nodes += [
            helper.make_node("QuantizeLinear", [name, scale, zero], [f"{prefix}_q"]),
            helper.make_node("DequantizeLinear", [f"{prefix}_q", scale, zero], [result]),
        ]
        return result

    def weight(self, values: NDArray[np.float32]) -> str:
        """A weight as signed integers of 7 bits, which no CPU's sums overflow on."""
        from onnx import helper, numpy_helper

        scale, zero = self._constants("weight", np.float32(0.005), np.int8(0))
        integers = np.clip(np.round(values / 0.005), -64, 63).astype(np.int8)
        self.initialisers.append(numpy_helper.from_array(integers, "at0_weight"))
        self.nodes.append(helper.make_node("DequantizeLinear", ["at0_weight", scale, zero], ["weight_float"]))
        return "weight_float"

    def _constants(self, prefix: str, scale: np.generic, zero: np.generic) -> tuple[str, str]:
        from onnx import numpy_helper

        names = (f"{prefix}_scale", f"{prefix}_zero")
        for name, value in zip(names, (scale, zero), strict=True):
            self.initialisers.append(numpy_helper.from_array(np.asarray(value), name))
        return names


def random_batch(piece: Piece, *, batch: int = 1) -> torch.Tensor:
    """Pictures or features for it, standard normal."""
    return torch.randn(batch, *piece.shape, generator=torch.Generator().manual_seed(0))
