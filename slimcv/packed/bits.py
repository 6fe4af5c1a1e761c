"""Small unsigned integers packed into as many bits as they need, the lowest bit first."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

_AT_ONCE = 1 << 16
"""Elements unpacked at a time: bounds what lies in memory as single bits."""


def packed(values: NDArray[np.unsignedinteger[Any]], bits: int) -> bytes:
    """Element i takes the bits from i * `bits` on of a little-endian stream; unused last bits are zero.

    `bits` is 1 to 32. Values must fit.
    """
    pieces = []
    wide = values.astype("<u4", copy=False)
    for start in range(0, len(wide), _AT_ONCE):
        piece = np.ascontiguousarray(wide[start : start + _AT_ONCE])
        single = np.unpackbits(piece.view(np.uint8).reshape(-1, 4), axis=1, count=bits, bitorder="little")
        pieces.append(np.packbits(single.ravel(), bitorder="little").tobytes())
    return b"".join(pieces)


def unpacked(
    stream: memoryview, bits: int, count: int, dtype: np.dtype[Any]
) -> NDArray[np.unsignedinteger[Any]]:
    """The `count` values of a stream that `packed` made; `dtype` must hold them."""
    found = np.empty(count, dtype)
    content = np.frombuffer(stream, np.uint8)
    for start in range(0, count, _AT_ONCE):
        stop = min(start + _AT_ONCE, count)
        # Whole bytes: _AT_ONCE is a multiple of eight.
        piece = content[start * bits // 8 : size(bits, stop)]
        single = np.unpackbits(piece, count=(stop - start) * bits, bitorder="little").reshape(-1, bits)
        wide = np.zeros((stop - start, 32), np.uint8)
        wide[:, :bits] = single
        found[start:stop] = np.packbits(wide, axis=1, bitorder="little").view("<u4").ravel()
    return found


def size(bits: int, count: int) -> int:
    """Bytes that `count` values of so many bits take."""
    return (bits * count + 7) // 8
