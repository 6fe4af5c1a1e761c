"""Golden samples in a packed file: pictures as differences, and the outputs expected for them.

Neighbours in a photograph are alike, in space and from one channel to the next, so that what the entropy
coder gets are mostly small numbers.
"""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
from numpy.typing import NDArray

from slimcv.packed.damage import Damaged
from slimcv.packed.directory import SAMPLE_BYTES

_HEAD = struct.Struct("<5I")

Samples = tuple[NDArray[np.uint8], NDArray[np.float32]]
"""Pixels uint8 (n, height, width, channels) and outputs float32 (n, classes)."""


def written(pixels: NDArray[np.uint8], outputs: NDArray[np.float32]) -> bytes:
    """The bytes of samples, of the first ones alone where all would be too many; nothing without any."""
    one = pixels[:1].nbytes + 4 * outputs.shape[1]
    count = min(len(pixels), (SAMPLE_BYTES - _HEAD.size) // max(1, one))
    if not count:
        return b""
    planes = pixels[:count].transpose(0, 3, 1, 2)
    head = _HEAD.pack(*planes.shape, outputs.shape[1])
    return head + _differences(planes).tobytes() + outputs[:count].astype("<f4").tobytes()


def read(content: bytes) -> Samples:
    """What `written` was given. Raises Damaged."""
    if len(content) < _HEAD.size:
        raise Damaged("its golden samples are cut short")
    *shape, classes = _HEAD.unpack_from(content)
    values = int(np.prod(np.array(shape, dtype=object)))
    if not values or len(content) != _HEAD.size + values + 4 * shape[0] * classes:
        raise Damaged("its golden samples have another size than they say")
    found = np.frombuffer(content, np.uint8, values, _HEAD.size).reshape(shape)
    # Sums of bytes wrap around as the differences did.
    planes = np.cumsum(np.cumsum(found, axis=1, dtype=np.uint8), axis=3, dtype=np.uint8)
    outputs = np.frombuffer(content, "<f4", shape[0] * classes, _HEAD.size + values)
    return np.ascontiguousarray(planes.transpose(0, 2, 3, 1)), outputs.reshape(shape[0], classes)


def _differences(planes: NDArray[np.uint8]) -> NDArray[Any]:
    """From the value to the left, and then from the same of the channel before, modulo 256."""
    zero = np.uint8(0)
    return np.diff(np.diff(planes, axis=3, prepend=zero), axis=1, prepend=zero)
