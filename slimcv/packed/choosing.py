"""Which way of writing a tensor takes the fewest bytes: each is tried and what comes out is counted."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from slimcv.packed import coders, encodings
from slimcv.packed.encodings import Elements, Encoded, Stream, unsigned

_STREAM_BYTES = 4
"""What a further stream costs in the directory and in the head of its block."""

_WHOLE, _SAMPLE = 1 << 18, 1 << 16
"""Streams up to the first are compressed whole for the estimate, of others three samples of the second."""

_DENSE = 0.9
"""From this share of elements that are not zero on, positions of zeros cannot pay."""

_FEW = 1 << 12
"""Different elements among a sample: more are not looked for in the whole tensor."""

SMALL_BYTES = 4096
"""Tensors that are hardly compressed on their own, but together with their like."""


def best(elements: Elements, *, rows: int = 1) -> Encoded:
    """The way that takes the fewest bytes for this tensor alone. `rows` is its first dimension."""
    if not len(elements):
        return encodings.raw(elements)
    if (elements == elements[0]).all():
        return encodings.constant(elements)
    return min(_ways(elements, rows), key=estimated_bytes)


def alike(tensors: Sequence[Elements]) -> list[Encoded]:
    """Small tensors of one width, written in whichever way makes the fewest bytes of all together.

    One that is far smaller in a way of its own (a constant, few different values) gets that.
    """
    families = [
        [encodings.raw(elements) for elements in tensors],
        [encodings.planes(elements, rotated=False) for elements in tensors],
        [encodings.planes(elements, rotated=True) for elements in tensors],
    ]
    common = min(families if tensors[0].dtype.itemsize > 1 else families[:1], key=_together)
    own = [best(elements) for elements in tensors]
    return [
        alone if estimated_bytes(alone) < elements.nbytes / 2 else shared
        for elements, alone, shared in zip(tensors, own, common, strict=True)
    ]


def _ways(elements: Elements, rows: int) -> Iterator[Encoded]:
    yield from _leaves(elements)
    if not _few(elements):
        return
    found = encodings.indices(elements, most=min(encodings.LARGEST_BOOK, max(2, len(elements) // 2)))
    if found is not None:
        book, places = found
        yield encodings.codebook(book, min(_leaves(places), key=estimated_bytes))
    if rows > 1:
        yield from _by_row(elements.reshape(rows, -1))
        if len(elements) > rows:
            turned = _by_row(np.ascontiguousarray(elements.reshape(rows, -1).T))
            yield from (encodings.transposed(rows, each) for each in turned)


def _by_row(matrix: Elements) -> Iterator[Encoded]:
    """A codebook a row, where that is less than the elements themselves."""
    width, most = matrix.dtype.itemsize, min(encodings.LARGEST_ROW_BOOK, matrix.shape[1] // 2)
    books, places, entries = [], np.empty(matrix.shape, np.uint8), 0
    for row, into in zip(matrix, places, strict=True):
        found = encodings.indices(row, most=most)
        if found is None:
            return
        books.append(found[0])
        into[:] = found[1]
        entries += len(found[0])
    if entries * width < matrix.nbytes // 2:
        yield encodings.row_codebooks(books, min(_leaves(places.ravel()), key=estimated_bytes))


def _few(elements: Elements) -> bool:
    if len(elements) <= _SAMPLE:
        return True
    return len(np.unique(elements[:: len(elements) // _SAMPLE])) <= _FEW


def _leaves(elements: Elements) -> Iterator[Encoded]:
    yield from _plain(elements)
    present = elements[elements != 0]
    if 0 < len(present) < _DENSE * len(elements):
        child = min(_plain(present), key=estimated_bytes)
        yield encodings.masked(elements, child)
        yield encodings.gaps(elements, child)


def _plain(elements: Elements) -> Iterator[Encoded]:
    width = elements.dtype.itemsize
    yield encodings.raw(elements)
    if width > 1:
        yield encodings.planes(elements, rotated=False)
        yield encodings.planes(elements, rotated=True)
    needed = max(1, int((elements - encodings.lowest(elements)).max()).bit_length())
    # Whole bytes leave more to the entropy coder, fewer bits leave less to be coded.
    whole = {count for count in (1, 2, 4, 8, 16, 32) if needed <= count}
    for count in sorted({needed, min(whole, default=64), min(whole - {1, 2, 4}, default=64)}):
        if count <= encodings.MOST_BITS and count < 8 * width:
            yield encodings.narrow(elements, count)


def estimated_bytes(encoded: Encoded) -> float:
    """Bytes of all its streams when they are compressed."""
    return sum(_STREAM_BYTES + estimated(stream.content) for stream in encoded.every_stream())


def estimated(content: bytes) -> float:
    """Bytes of a stream when it is compressed."""
    if len(content) <= _WHOLE:
        return min(len(content), len(coders.zstandard_of(content, level=coders.ESTIMATE_LEVEL)))
    starts = np.linspace(0, len(content) - _SAMPLE, 3).astype(int)
    sample = b"".join(content[start : start + _SAMPLE] for start in starts)
    return estimated(sample) * len(content) / len(sample)


def _together(family: Sequence[Encoded]) -> float:
    kinds: dict[str, list[Stream]] = {}
    for encoded in family:
        for stream in encoded.every_stream():
            kinds.setdefault(stream.kind, []).append(stream)
    return sum(estimated(b"".join(stream.content for stream in streams)) for streams in kinds.values())


def elements_of(content: memoryview, width: int) -> Elements:
    """The bytes of a tensor as its elements."""
    return np.frombuffer(content, unsigned(width))
