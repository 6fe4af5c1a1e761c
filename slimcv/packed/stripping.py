"""An ONNX model without what no runtime computes with: notes, names of nodes, shapes between them."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from typing import Any

from slimcv.packed.wire import NotOnnx

_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"


def stripped(model: bytes) -> bytes:
    """The same computation in fewer bytes: equal outputs, the same names of inputs and outputs.

    Notes, names of nodes and the shapes of values between them (runtimes infer them) are gone, values and
    weights have short names. The model's own metadata stays. Raises NotOnnx.
    """
    import onnx
    from google.protobuf.message import DecodeError

    try:
        found = onnx.load_model_from_string(model)
    except DecodeError as error:
        raise NotOnnx(str(error)) from error
    for field in ("doc_string", "producer_name", "producer_version", "domain"):
        found.ClearField(field)
    _strip(found.graph)
    for function in found.functions:
        function.ClearField("doc_string")
        for node in function.node:
            _strip_node(node)
    if not found.graph.quantization_annotation and not any(_subgraphs(found.graph)):
        _rename(found.graph)
    content: bytes = found.SerializeToString(deterministic=True)
    return content


def _strip(graph: Any) -> None:
    del graph.value_info[:]
    for part in (graph, *graph.input, *graph.output, *graph.initializer):
        part.ClearField("doc_string")
        part.ClearField("metadata_props")
    for node in graph.node:
        _strip_node(node)
    for inner in _subgraphs(graph):
        _strip(inner)


def _strip_node(node: Any) -> None:
    for field in ("name", "doc_string", "metadata_props"):
        node.ClearField(field)
    for attribute in node.attribute:
        attribute.ClearField("doc_string")


def _subgraphs(graph: Any) -> Iterator[Any]:
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield attribute.g
            yield from attribute.graphs


def _rename(graph: Any) -> None:
    """Number weights and values in the order in which nodes read and write them."""
    kept = {value.name for value in (*graph.input, *graph.output)} | {""}
    kept |= {tensor.values.name for tensor in graph.sparse_initializer}
    numbers = (name for name in map(_number, count()) if name not in kept)
    names: dict[str, str] = {}
    for node in graph.node:
        for places in (node.input, node.output):
            for place, name in enumerate(places):
                if name not in kept:
                    if name not in names:
                        names[name] = next(numbers)
                    places[place] = names[name]
    for tensor in graph.initializer:
        if tensor.name not in kept:
            tensor.name = names.get(tensor.name) or next(numbers)


def _number(value: int) -> str:
    digits = ""
    while value or not digits:
        value, digit = divmod(value, len(_DIGITS))
        digits = _DIGITS[digit] + digits
    return digits
