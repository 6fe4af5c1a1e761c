"""The pictures of a split as an array that is not in memory: what is asked for is read, or decoded, then."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np


class Rows(Protocol):
    """Pictures by their positions (int64, one dimension): kept ones (`Stored`) or none (`Stream`)."""

    def take(self, positions: np.ndarray) -> np.ndarray:
        """Uint8 (len(positions), height, width, channels), the caller's own."""

    def expect(self, positions: np.ndarray) -> None:
        """Those that will be taken together before long."""


class Pixels:
    """Uint8 (n, height, width, channels), read-only.

    An index, a slice, a mask or an array of positions, alone or before indices within the picture, gives
    those pictures as an array of the caller's own; only `[:]` gives the whole as it is, unread.
    `numpy.asarray` reads all of it into memory.
    """

    dtype = np.dtype(np.uint8)
    ndim = 4

    def __init__(self, rows: Rows, positions: np.ndarray, size: tuple[int, int, int]) -> None:
        self._rows = rows
        self._positions = positions
        self.shape = (len(positions), *size)

    @property
    def nbytes(self) -> int:
        """What all pictures would take in memory."""
        return int(np.prod(self.shape, dtype=np.int64))

    def __len__(self) -> int:
        return len(self._positions)

    def expect(self, index: np.ndarray) -> None:
        """Say which pictures will be asked for together before long: those that are not kept are decoded in
        the meantime, on all cores and within bounds of memory.
        """
        self._rows.expect(self._positions[index])

    def __getitem__(self, index: int | slice | Sequence[int] | np.ndarray | tuple[Any, ...]) -> np.ndarray:
        """The pictures there, or what is there of them; IndexError and the like as from an array."""
        if isinstance(index, tuple):
            first, *within = index
            chosen = np.asarray(self[first])
            return np.asarray(chosen[(*([slice(None)] * (chosen.ndim - 3)), *within)])
        if isinstance(index, slice) and index == slice(None):
            return self  # type: ignore[return-value]
        positions = np.asarray(self._positions[index])
        return self._rows.take(positions.reshape(-1)).reshape(positions.shape + self.shape[1:])

    def __array__(self, dtype: np.dtype | None = None, copy: bool | None = None) -> np.ndarray:
        if copy is False:
            raise ValueError("these pictures are not in memory: an array of them is always a copy")
        found = self._rows.take(self._positions)
        return found if dtype is None else found.astype(dtype, copy=False)
