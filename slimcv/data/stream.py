"""Pictures decoded whenever they are asked for: nothing is kept but what was announced and not fetched."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass

import numpy as np

from slimcv.data.decoding import quiet_pillow
from slimcv.data.losses import report, stand_ins
from slimcv.data.rows import Fault, Size, decode_rows
from slimcv.data.sources import Sample
from slimcv.measure.threads import available

AHEAD_BYTES = 256 * 2**20
"""Memory that pictures decoded ahead may take."""

PART = 8
"""The most pictures that a core takes on at once."""


@dataclass(frozen=True)
class _Batch:
    """Pixels that are being decoded, which sample each row is of, and the futures of parts by first row."""

    pixels: np.ndarray
    source: list[int]
    parts: dict[int, Future[dict[int, Fault]]]


class Stream:
    """The pictures of one list at one size.

    Threads decode; a picture that vanished meanwhile is replaced as slimcv.data.losses says.
    """

    def __init__(self, samples: Sequence[Sample], size: Size) -> None:
        self._samples = samples
        self._size = size
        self._ahead: OrderedDict[bytes, _Batch] = OrderedDict()
        self._lost: dict[int, Fault] = {}
        self._instead: dict[int, int] = {}
        self._pool: ThreadPoolExecutor | None = None

    def expect(self, positions: np.ndarray) -> None:
        """Begin to decode these pictures, to be fetched together; the oldest announced give way to them."""
        key = positions.tobytes()
        if key in self._ahead:
            return
        each = int(np.prod(self._size))
        if len(positions) * each > AHEAD_BYTES:
            return
        while (
            sum(batch.pixels.nbytes for batch in self._ahead.values()) + len(positions) * each > AHEAD_BYTES
        ):
            _, dropped = self._ahead.popitem(last=False)
            for future in dropped.parts.values():
                future.cancel()
        self._ahead[key] = self._begun(positions)

    def take(self, positions: np.ndarray) -> np.ndarray:
        """Uint8 (len(positions), height, width, channels). Raises SlimcvError where too much was lost."""
        with quiet_pillow():
            batch = self._ahead.pop(positions.tobytes(), None) or self._begun(positions)
            wait(batch.parts.values())
        faults = {
            start + at: fault for start, part in batch.parts.items() for at, fault in part.result().items()
        }
        if faults:
            self._mend(batch, positions, faults)
        return batch.pixels

    def _begun(self, positions: np.ndarray) -> _Batch:
        if self._pool is None:
            self._pool = ThreadPoolExecutor(available(), thread_name_prefix="slimcv-decode")
        pixels = np.zeros((len(positions), *self._size), dtype=np.uint8)
        step = max(1, min(PART, -(-len(positions) // available())))
        source = [self._instead.get(at, at) for at in positions.tolist()]
        wanted = [self._samples[at] for at in source]
        parts = {
            start: self._pool.submit(decode_rows, wanted[start : start + step], pixels[start : start + step])
            for start in range(0, len(positions), step)
        }
        return _Batch(pixels, source, parts)

    def _mend(self, batch: _Batch, positions: np.ndarray, faults: dict[int, Fault]) -> None:
        """Fill the rows of pictures that were lost since the check from others of their classes."""
        source = dict(enumerate(batch.source))
        while faults:
            found = {source[row]: fault for row, fault in faults.items()}
            new = {position: fault for position, fault in found.items() if position not in self._lost}
            self._lost |= new
            self._instead = stand_ins(self._samples, self._lost)
            report(self._samples, new, self._instead)
            rows = list(faults)
            source = {row: self._instead[int(positions[row])] for row in rows}
            again = np.empty((len(rows), *self._size), dtype=np.uint8)
            failed = decode_rows([self._samples[source[row]] for row in rows], again)
            batch.pixels[rows] = again
            faults = {rows[at]: fault for at, fault in failed.items()}
