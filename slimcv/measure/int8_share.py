"""Which share of a file's multiply-accumulates is done on 8-bit integers, as its own graph asks for."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

from slimcv.runtimes import openvino as openvino_runtime

_MULTIPLIES = ("Convolution", "GroupConvolution", "MatMul")

_SAME_VALUES = ("Reshape", "Transpose", "Squeeze", "Unsqueeze", "MaxPool", "Split", "VariadicSplit")
"""What moves values, or takes the largest of some, and leaves integers as they are."""

_SCALES = ("Convert", "Subtract", "Multiply")
"""What takes integers back to floats: conversion, zero point, scale."""

_INTEGERS = ("i8", "u8")
_LEVELS = 256


def of_file(path: Path) -> float | None:
    """The fraction (0 to 1) of the MACs of an `.onnx` or an OpenVINO `.xml` with two 8-bit operands.

    Whoever quantised it: OpenVINO reads both, and a QuantizeLinear as its own FakeQuantize. None where it
    does not read the file, or is not installed. A runtime may still decide otherwise
    (`runtimes.openvino.executed_precisions`).
    """
    try:
        openvino = openvino_runtime.import_library()
        model = openvino.Core().read_model(os.fspath(path))
        sides = list(model.input(0).get_partial_shape())[1:]
        model.reshape({model.input(0): openvino.PartialShape([1, *sides])})
    except (ImportError, RuntimeError):
        return None
    costs = {node: _macs(node) for node in model.get_ordered_ops() if node.get_type_name() in _MULTIPLIES}
    total = sum(costs.values())
    return sum(cost for node, cost in costs.items() if _on_integers(node)) / total if total else 0.0


def _on_integers(node: Any) -> bool:
    return all(_from_integers(value.get_node()) for value in node.input_values()[:2])


def _macs(node: Any) -> int:
    """Products of one output, its channels and kernel or the common side of two matrices, times outputs."""
    left, right = (list(value.get_shape()) for value in node.input_values()[:2])
    kind = node.get_type_name()
    if kind == "MatMul":
        each = left[-2 if node.get_attributes()["transpose_a"] else -1]
    else:
        each = math.prod(right[2 if kind == "GroupConvolution" else 1 :])
    return int(math.prod(node.output(0).get_shape()) * each)


def _from_integers(node: Any) -> bool:
    """Whether a value is one of at most 256 levels, seen through scales and changes of layout."""
    while True:
        kind, values = node.get_type_name(), node.input_values()
        if kind == "FakeQuantize":
            return int(node.get_attributes()["levels"]) <= _LEVELS
        if kind == "Constant":
            return node.get_element_type().get_type_name() in _INTEGERS
        if kind == "Concat":
            return all(_from_integers(value.get_node()) for value in values)
        scaled = kind in _SCALES and all(_constant(value.get_node()) for value in values[1:])
        if not scaled and kind not in _SAME_VALUES:
            return False
        node = values[0].get_node()


def _constant(node: Any) -> bool:
    while node.get_type_name() in ("Convert", "Reshape", "Unsqueeze"):
        node = node.input_value(0).get_node()
    return bool(node.get_type_name() == "Constant")
