"""The ways in which the elements of a tensor are written, and back from each of them.

Elements are unsigned integers of 1, 2, 4 or 8 bytes whatever they mean, so that NaN payloads, negative
zeros and types numpy does not know stay as they are. Every way is a list of byte streams and perhaps another
tensor (indices, the values that are not zero), which is written in one of these ways too. `docs/format.md`
says the same in words. Codebooks and sparse positions: "Deep Compression" (Han, Mao, Dally, 2016).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from slimcv.packed import bits

Elements = NDArray[np.unsignedinteger[Any]]

LARGEST_BOOK, LARGEST_ROW_BOOK = 1 << 16, 1 << 8
MOST_BITS = 32
ESCAPE = 255
"""Among gaps: as many zeros, and no value after them."""


class Way(IntEnum):
    """How the elements are written."""

    RAW = 0
    PLANES = 1
    ROTATED = 2
    CONSTANT = 3
    CODEBOOK = 4
    ROW_CODEBOOKS = 5
    NARROW = 6
    MASKED = 7
    GAPS = 8
    TRANSPOSED = 9


@dataclass(frozen=True)
class Stream:
    """Bytes for an entropy coder; those of one kind are alike and may be coded together."""

    kind: str
    content: bytes


@dataclass(frozen=True)
class Encoded:
    """A tensor written in one way: what the directory says of it, its streams, the tensor within it."""

    way: Way
    numbers: tuple[int, ...] = ()
    streams: tuple[Stream, ...] = ()
    child: Encoded | None = None

    def every_stream(self) -> Iterator[Stream]:
        """Its own streams and then those of the tensor within it."""
        yield from self.streams
        if self.child is not None:
            yield from self.child.every_stream()

    def ways(self) -> str:
        """The ways from the outermost in, such as "codebook, narrow"."""
        name = self.way.name.lower()
        return name if self.child is None else f"{name}, {self.child.ways()}"


def unsigned(width: int) -> np.dtype[Any]:
    """The type of elements of so many bytes."""
    return np.dtype(f"<u{width}")


def raw(elements: Elements) -> Encoded:
    """As they are."""
    return Encoded(Way.RAW, (), (Stream(f"raw {_width(elements)}", elements.tobytes()),))


def planes(elements: Elements, *, rotated: bool) -> Encoded:
    """All first bytes, then all second bytes …

    `rotated` by a bit to the left first: a float's exponent is then a byte of its own, and its sign stands
    below the fraction.
    """
    width = _width(elements)
    if rotated:
        elements = turned(elements, left=1)
    parts = np.ascontiguousarray(elements.view(np.uint8).reshape(-1, width).T)
    kind = "rotated" if rotated else "plane"
    streams = tuple(Stream(f"{kind} {place} of {width}", part.tobytes()) for place, part in enumerate(parts))
    return Encoded(Way.ROTATED if rotated else Way.PLANES, (), streams)


def turned(elements: Elements, *, left: int) -> Elements:
    """Rotated by so many bits."""
    bit_count = 8 * _width(elements)
    one, other = (elements.dtype.type(count % bit_count) for count in (left, -left))
    found: Elements = (elements << one) | (elements >> other)
    return found


def constant(elements: Elements) -> Encoded:
    """One element that stands for all."""
    return Encoded(Way.CONSTANT, (), (Stream("constant", elements[:1].tobytes()),))


def narrow(elements: Elements, count: int) -> Encoded:
    """The difference from the lowest (read as signed numbers), in `count` bits each."""
    base = lowest(elements)
    offsets = elements - base
    stream = Stream(f"narrow {count}", bits.packed(offsets, count))
    return Encoded(Way.NARROW, (count, int(base)), (stream,))


def lowest(elements: Elements) -> np.unsignedinteger[Any]:
    """The lowest where elements are read as signed numbers."""
    low = elements.view(np.dtype(f"<i{_width(elements)}")).min()
    found: np.unsignedinteger[Any] = low.view(elements.dtype)
    return found


def masked(elements: Elements, child: Encoded) -> Encoded:
    """A bit for each element, set where it is not zero; `child` are those that are not."""
    present = elements != 0
    mask = np.packbits(present, bitorder="little").tobytes()
    return Encoded(Way.MASKED, (int(present.sum()),), (Stream("mask", mask),), child)


def gaps(elements: Elements, child: Encoded) -> Encoded:
    """A byte for each element that is not zero: how many zeros stand before it; `child` are the elements."""
    places = np.flatnonzero(elements)
    before = np.diff(places, prepend=-1) - 1
    escapes = before // ESCAPE
    content = np.full(int(escapes.sum()) + len(places), ESCAPE, np.uint8)
    content[np.cumsum(escapes + 1) - 1] = before % ESCAPE
    return Encoded(Way.GAPS, (len(places), len(content)), (Stream("gaps", content.tobytes()),), child)


def codebook(book: Elements, child: Encoded) -> Encoded:
    """The different elements; `child` says which of them each element is."""
    return Encoded(Way.CODEBOOK, (len(book),), (_book(book),), child)


def row_codebooks(books: list[Elements], child: Encoded) -> Encoded:
    """A codebook for each row; `child` are positions in the row's own."""
    counts = np.array([len(book) - 1 for book in books], np.uint8).tobytes()
    joined = np.concatenate(books)
    streams = (Stream("book sizes", counts), _book(joined))
    return Encoded(Way.ROW_CODEBOOKS, (len(books), len(joined)), streams, child)


def transposed(rows: int, child: Encoded) -> Encoded:
    """`child` are the elements column by column."""
    return Encoded(Way.TRANSPOSED, (rows,), (), child)


def indices(elements: Elements, *, most: int) -> tuple[Elements, Elements] | None:
    """The different elements in rising order and the position of each element among them.

    None where there are more than `most`. Positions take one byte, or two from 257 different elements on.
    """
    book, found = np.unique(elements, return_inverse=True)
    if len(book) > most:
        return None
    return book, found.astype(unsigned(index_width(len(book))))


def index_width(count: int) -> int:
    """Bytes of a position among so many."""
    return 1 if count <= LARGEST_ROW_BOOK else 2


def _book(book: Elements) -> Stream:
    return Stream(f"book {_width(book)}", book.tobytes())


def _width(elements: Elements) -> int:
    return int(elements.dtype.itemsize)
