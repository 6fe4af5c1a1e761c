"""Where in the bytes of an ONNX file its tensors are, read from the protocol buffer itself.

The file is never parsed into objects and written again: what is cut out of it can be put back, and every byte
is as it was, whichever library wrote it. (Protocol Buffers, "Encoding", protobuf.dev; numbers: onnx.proto.)
"""

from __future__ import annotations

from collections.abc import Iterator, Set
from dataclasses import dataclass
from typing import Protocol

from slimcv.errors import SlimcvError

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5

_MESSAGES = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "function": {7: "node", 11: "attribute"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
}
"""Which fields of which messages lead to tensors."""

_DIMS, _DATA_TYPE, _FLOATS, _RAW, _DOUBLES, _EXTERNAL, _LOCATION = 1, 2, 4, 9, 10, 13, 14
_CONTENT_WIDTHS = {_FLOATS: 4, _DOUBLES: 8}
"""Packed repeated fields that hold a tensor's elements as they are in memory, with the bytes of each."""

_WIDTHS = {1: 4, 4: 2, 5: 2, 6: 4, 7: 8, 10: 2, 11: 8, 12: 4, 13: 8, 14: 4, 15: 8, 16: 2}
"""Bytes of an element (of a part of a complex one) by TensorProto.DataType; 1 for all others."""

_DEEPEST = 100
"""Messages within messages, the limit that protocol buffer libraries keep too."""

MOST_FIELDS = 1 << 21
"""Some hundred times those of a large model: what a reader looks at of one that means harm."""


@dataclass(frozen=True)
class Span:
    """The elements of one tensor: `length` bytes from `start` on, `width` bytes each."""

    start: int
    length: int
    width: int
    rows: int


class Bytes(Protocol):
    """A file's bytes, each by its place."""

    def __len__(self) -> int: ...

    def __getitem__(self, place: int, /) -> int: ...


class NotOnnx(SlimcvError):  # noqa: N818 -- reads as a fact about the file
    """Bytes that are no ONNX model, or one that is not whole."""

    def __init__(self, reason: str) -> None:
        super().__init__(
            f"not an ONNX model in one file: {reason}", "export it again, with its weights inside"
        )


def spans(model: Bytes) -> list[Span]:
    """The elements of all tensors in the order in which they stand in the file.

    `rows` is the first dimension, 1 where a tensor has none. Elements that are spread out (integers as
    varints, strings) are not listed. Raises NotOnnx for what is no ONNX model, and for one with tensors in
    other files.
    """
    return sorted(_found(model, wanted=None), key=lambda span: span.start)


def are_tensors(model: Bytes, wanted: Set[tuple[int, int]]) -> bool:
    """Whether each of these pairs of start and length is the elements of a tensor.

    Takes memory for them alone, however many others there are. Raises NotOnnx as `spans` does.
    """
    return wanted <= {(span.start, span.length) for span in _found(model, wanted=wanted)}


def _found(model: Bytes, *, wanted: Set[tuple[int, int]] | None) -> list[Span]:
    search = _Search(model, wanted)
    if not search.walk(0, len(model), "model", depth=0):
        raise NotOnnx("it has no graph")
    return search.found


class _Search:
    """One way through a model: what was found, and how many fields may still be looked at.

    Of a file that means harm only what is `wanted` may be remembered; None is for all.
    """

    def __init__(self, model: Bytes, wanted: Set[tuple[int, int]] | None) -> None:
        self.found: list[Span] = []
        self._model, self._wanted, self._fields_left = model, wanted, MOST_FIELDS

    def walk(self, start: int, end: int, message: str, *, depth: int) -> int:
        """Add the spans within one message; how many of its fields lead to tensors."""
        if depth > _DEEPEST:
            raise NotOnnx(f"messages within messages, more than {_DEEPEST} deep")
        inner, seen = _MESSAGES[message], 0
        for field, wire, place, length in self._fields(start, end):
            child = inner.get(field)
            if child is None or wire != BYTES:
                continue
            seen += 1
            if child == "tensor":
                self._tensor(place, place + length)
            else:
                self.walk(place, place + length, child, depth=depth + 1)
        return seen

    def _tensor(self, start: int, end: int) -> None:
        places: list[tuple[int, int, int | None]] = []
        model, rows, data_type = self._model, 0, 0
        for field, wire, place, length in self._fields(start, end):
            if field == _EXTERNAL or (
                field == _LOCATION and wire == VARINT and _varint(model, place, end)[0]
            ):
                raise NotOnnx("it has tensors in other files")
            if wire == BYTES and (field == _RAW or field in _CONTENT_WIDTHS):
                if self._wanted is None or (place, length) in self._wanted:
                    places.append((place, length, _CONTENT_WIDTHS.get(field)))
            elif field == _DIMS and not rows and length:
                rows = _varint(model, place, end)[0]  # A packed list begins with the first dimension too.
            elif field == _DATA_TYPE and wire == VARINT:
                data_type = _varint(model, place, end)[0]
        own = _WIDTHS.get(data_type, 1)
        self.found += (_span(place, length, width or own, rows) for place, length, width in places)

    def _fields(self, start: int, end: int) -> Iterator[tuple[int, int, int, int]]:
        """Number, wire type, place and length in bytes of the value of each field."""
        model, at = self._model, start
        while at < end:
            self._fields_left -= 1
            if self._fields_left < 0:
                raise NotOnnx(f"more than {MOST_FIELDS:,} fields")
            tag, at = _varint(model, at, end)
            field, wire = tag >> 3, tag & 7
            if not 1 <= field < 1 << 29:
                raise NotOnnx(f"no field has the number {field}")
            place, length = at, 0
            if wire == VARINT:
                length = _varint(model, at, end)[1] - at
            elif wire == BYTES:
                length, place = _varint(model, at, end)
            elif wire in (FIXED64, FIXED32):
                length = 8 if wire == FIXED64 else 4
            else:
                raise NotOnnx(f"no field has the wire type {wire}")
            at = place + length
            if at > end:
                raise NotOnnx("it ends in the middle of a field")
            yield field, wire, place, length


def _span(start: int, length: int, width: int, rows: int) -> Span:
    width = width if length % width == 0 else 1
    count = length // width
    return Span(start, length, width, rows if rows and count and count % rows == 0 else 1)


def _varint(model: Bytes, at: int, end: int) -> tuple[int, int]:
    """The number at a place, and the place after it."""
    value = 0
    for shift in range(0, 70, 7):
        if at >= end:
            raise NotOnnx("it ends in the middle of a number")
        byte = model[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & 0xFFFF_FFFF_FFFF_FFFF, at
    raise NotOnnx("a number of more than ten bytes")
