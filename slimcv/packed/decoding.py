"""A tensor's description in the directory: read and checked on its own, then followed to the elements.

Every size is known from the directory alone, so that one that cannot be right is found before a block is
decoded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from slimcv.packed import bits
from slimcv.packed.damage import Damaged
from slimcv.packed.encodings import (
    ESCAPE,
    LARGEST_BOOK,
    MOST_BITS,
    Elements,
    Way,
    index_width,
    turned,
    unsigned,
)
from slimcv.packed.varints import Numbers

_DEEPEST = 4

_AT_ONCE = 1 << 16
"""Elements followed at a time: positions take eight bytes each, whatever the element that they lead to."""

Take = Callable[[int, int], memoryview]
"""The next so many bytes of a block."""


@dataclass(frozen=True)
class Described:
    """A tensor of `count` elements of `width` bytes, as the directory describes it.

    `streams` are pairs of block and size in bytes.
    """

    way: Way
    count: int
    width: int
    numbers: tuple[int, ...]
    streams: tuple[tuple[int, int], ...]
    child: Described | None

    def every_stream(self) -> Iterator[tuple[int, int]]:
        """Block and size of its own streams and then of those of the tensor within it."""
        yield from self.streams
        if self.child is not None:
            yield from self.child.every_stream()


_NUMBERS = {
    Way.CODEBOOK: 1,
    Way.ROW_CODEBOOKS: 2,
    Way.NARROW: 2,
    Way.MASKED: 1,
    Way.GAPS: 2,
    Way.TRANSPOSED: 1,
}
"""How many numbers follow the way in the directory."""

_WITH_CHILD = (Way.CODEBOOK, Way.ROW_CODEBOOKS, Way.MASKED, Way.GAPS, Way.TRANSPOSED)


def described(directory: Numbers, *, count: int, width: int, depth: int = 1) -> Described:
    """Read the description of a tensor. Raises Damaged where it contradicts itself."""
    code = directory.byte()
    if code not in tuple(Way):
        raise Damaged(f"no tensor is written in way {code}")
    way = Way(code)
    numbers = tuple(directory.next() for _ in range(_NUMBERS.get(way, 0)))
    sizes, inner = _shape(way, numbers, count=count, width=width)
    streams = tuple((directory.next(), size) for size in sizes)
    child = None
    if way in _WITH_CHILD:
        if depth == _DEEPEST:
            raise Damaged(f"tensors within tensors, more than {_DEEPEST} deep")
        child = described(directory, count=inner[0], width=inner[1], depth=depth + 1)
    return Described(way, count, width, numbers, streams, child)


def _shape(
    way: Way, numbers: tuple[int, ...], *, count: int, width: int
) -> tuple[tuple[int, ...], tuple[int, int]]:
    """Sizes of the streams, and count and width of the elements within. Raises Damaged."""
    inner, sound = (count, width), True
    sizes: tuple[int, ...] = (count * width,)
    if way in (Way.PLANES, Way.ROTATED):
        sizes = (count,) * width
    elif way is Way.CONSTANT:
        sizes = (width,)
    elif way is Way.CODEBOOK:
        sound = 1 <= numbers[0] <= min(LARGEST_BOOK, count)
        sizes, inner = (numbers[0] * width,), (count, index_width(numbers[0]))
    elif way is Way.ROW_CODEBOOKS:
        rows, entries = numbers
        sound = 1 <= rows <= count and count % rows == 0 and rows <= entries <= count
        sizes, inner = (rows, entries * width), (count, 1)
    elif way is Way.NARROW:
        sound = 1 <= numbers[0] <= min(MOST_BITS, 8 * width - 1) and numbers[1] < 1 << 8 * width
        sizes = (bits.size(numbers[0], count),)
    elif way is Way.MASKED:
        sound = numbers[0] <= count
        sizes, inner = (bits.size(1, count),), (numbers[0], width)
    elif way is Way.GAPS:
        present, length = numbers
        # Each escape stands for zeros that the tensor must have.
        sound = present <= count and present <= length <= present + count // ESCAPE
        sizes, inner = (length,), (present, width)
    elif way is Way.TRANSPOSED:
        # No more rows than elements, one where there are none: any number divides zero.
        sound = 1 <= numbers[0] <= max(1, count) and count % numbers[0] == 0
        sizes = ()
    if not sound:
        raise Damaged(f"{way.name.lower()} has impossible numbers for {count} elements")
    return sizes, inner


def elements(tensor: Described, take: Take) -> Elements:
    """The elements of a tensor, flat. Raises Damaged where the content of a stream cannot be."""
    dtype, count, numbers = unsigned(tensor.width), tensor.count, tensor.numbers
    parts = [take(block, size) for block, size in tensor.streams]
    inner = None if tensor.child is None else elements(tensor.child, take)
    if inner is None:
        return _leaf(tensor, parts)
    if tensor.way is Way.TRANSPOSED:
        return np.ascontiguousarray(inner.reshape(-1, numbers[0]).T).ravel()
    if tensor.way is Way.CODEBOOK:
        return _looked_up(np.frombuffer(parts[0], dtype), inner)
    if tensor.way is Way.ROW_CODEBOOKS:
        return _by_row(parts, inner.reshape(numbers[0], -1), dtype)
    found = np.zeros(count, dtype)
    if tensor.way is Way.MASKED:
        found[_mask(parts[0], count, numbers[0])] = inner
    else:
        _fill_gaps(found, np.frombuffer(parts[0], np.uint8), inner)
    return found


def _leaf(tensor: Described, parts: list[memoryview]) -> Elements:
    dtype, width = unsigned(tensor.width), tensor.width
    if tensor.way is Way.RAW:
        return np.frombuffer(parts[0], dtype)
    if tensor.way is Way.CONSTANT:
        return np.full(tensor.count, np.frombuffer(parts[0], dtype)[0])
    if tensor.way is Way.NARROW:
        count, base = tensor.numbers
        found = bits.unpacked(parts[0], count, tensor.count, dtype)
        found += dtype.type(base)
        return found
    joined = np.empty((tensor.count, width), np.uint8)
    for place, part in enumerate(parts):
        joined[:, place] = np.frombuffer(part, np.uint8)
    whole = joined.view(dtype).ravel()
    if tensor.way is Way.ROTATED:
        for start in range(0, len(whole), _AT_ONCE):
            whole[start : start + _AT_ONCE] = turned(whole[start : start + _AT_ONCE], left=-1)
    return whole


def _looked_up(book: Elements, places: Elements) -> Elements:
    if len(places) and int(places.max()) >= len(book):
        raise Damaged("an index leaves its codebook")
    found = np.empty(len(places), book.dtype)
    for start in range(0, len(places), _AT_ONCE):
        found[start : start + _AT_ONCE] = book[places[start : start + _AT_ONCE]]
    return found


def _by_row(parts: list[memoryview], places: Elements, dtype: np.dtype[np.unsignedinteger]) -> Elements:
    last = np.frombuffer(parts[0], np.uint8)
    book = np.frombuffer(parts[1], dtype)
    rows, length = places.shape
    if int(last.sum(dtype=np.int64)) + rows != len(book):
        raise Damaged("the codebooks of the rows have another size than the directory says")
    found = np.empty(places.shape, dtype)
    together, end = max(1, _AT_ONCE // length), 0
    for first in range(0, rows, together):
        some = slice(first, first + together)
        ends = end + np.cumsum(last[some] + np.int64(1))
        starts, end = ends - last[some] - 1, int(ends[-1])
        for column in range(0, length, _AT_ONCE):
            piece = places[some, column : column + _AT_ONCE]
            if (piece > last[some, None]).any():
                raise Damaged("an index leaves its codebook")
            found[some, column : column + _AT_ONCE] = book[starts[:, None] + piece]
    return found.ravel()


def _mask(content: memoryview, count: int, present: int) -> NDArray[np.bool_]:
    single = np.unpackbits(np.frombuffer(content, np.uint8), bitorder="little")
    if single[count:].any() or int(single.sum()) != present:
        raise Damaged("a mask has another number of bits than the directory says")
    found: NDArray[np.bool_] = single[:count].view(np.bool_)
    return found


def _fill_gaps(found: Elements, before: NDArray[np.uint8], present: Elements) -> None:
    """Put the elements that are `present` into zeros, each as far behind the last as `before` says."""
    taken, place = 0, -1
    for start in range(0, len(before), _AT_ONCE):
        piece = before[start : start + _AT_ONCE]
        ends = piece != ESCAPE
        places = place + np.cumsum(piece + ends, dtype=np.int64)
        some, place = int(ends.sum()), int(places[-1])
        if place >= len(found) or taken + some > len(present):
            raise Damaged("the positions leave their tensor")
        found[places[ends]] = present[taken : taken + some]
        taken += some
    if taken != len(present):
        raise Damaged("the positions leave their tensor")
