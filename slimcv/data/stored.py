"""Decoded pictures in one file: filled from all cores, gone on with where it stopped, read by mapping it."""

from __future__ import annotations

import errno
import io
import json
import logging
import mmap
import os
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, Protocol

import numpy as np

from slimcv.data.decoding import quiet_pillow
from slimcv.data.parallel import in_order
from slimcv.data.rows import Fault, Size, decode_rows
from slimcv.data.sources import Sample

PART_BYTES = 4 * 2**20
PART_PICTURES = 32
"""What a core takes on at once: as many pictures as have at most that many bytes of pixels."""

SYNC_BYTES = 64 * 2**20
"""What a process killed while decoding loses at most."""

RELEASE_BYTES = 16 * 2**20
"""Pages of a map count as resident memory until they are given back, which is done after so much reading."""

AROUND_BYTES = 64 * 2**10
"""What the kernel maps around an address that is read, however little is asked for (fault_around_bytes)."""

log = logging.getLogger("slimcv")


class Taking(Protocol):
    """Where pictures come from if their file no longer has them."""

    def take(self, positions: np.ndarray) -> np.ndarray:
        """Uint8 (len(positions), height, width, channels)."""


def header(shape: tuple[int, ...]) -> bytes:
    """The first bytes of a .npy file of uint8 of this shape."""
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})
    return file.getvalue()


def file_bytes(shape: tuple[int, ...]) -> int:
    """The size of that file."""
    return len(header(shape)) + int(np.prod(shape, dtype=np.int64))


def intact(file: IO[bytes], shape: tuple[int, ...]) -> bool:
    """Whether an open file begins as it must and has the size it must have."""
    expected = header(shape)
    return os.fstat(file.fileno()).st_size == file_bytes(shape) and file.read(len(expected)) == expected


class Stored:
    """Pictures in an intact .npy file, mapped for as long as this lives.

    `rows` are the places in the file of the pictures meant, in their order. Where the file is cut short in
    the meantime, `instead` gives the pictures.
    """

    def __init__(
        self,
        file: IO[bytes],
        shape: tuple[int, ...],
        *,
        rows: np.ndarray,
        instead: Taking,
        whole: Stored | None = None,
    ) -> None:
        self._file = file
        # The file is open, and by that in use, until the last part of what it holds is gone.
        self._whole = whole
        if whole is None:
            weakref.finalize(self, file.close)
        self._shape = shape
        self._map = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
        self._pictures = np.frombuffer(self._map, np.uint8, offset=len(header(shape))).reshape(shape)
        self._rows = rows
        self._instead = instead
        self._read_bytes = 0
        self._cut = False

    def part(self, positions: np.ndarray, *, instead: Taking) -> Stored:
        """Some of these pictures; `instead` gives them by their positions among the chosen."""
        return Stored(
            self._file, self._shape, rows=self._rows[positions], instead=instead, whole=self._whole or self
        )

    def take(self, positions: np.ndarray) -> np.ndarray:
        """Uint8 (len(positions), height, width, channels)."""
        # Reading a map beyond the end of its file would kill the process.
        if self._cut or os.fstat(self._file.fileno()).st_size != file_bytes(self._shape):
            if not self._cut:
                log.warning("%s changed while it was read: its pictures are decoded anew", self._file.name)
            self._cut = True
            return self._instead.take(positions)
        found: np.ndarray = self._pictures[self._rows[positions]]
        self._read_bytes += len(found) * max(AROUND_BYTES, found[:1].nbytes)
        if self._read_bytes >= RELEASE_BYTES:
            self._read_bytes = 0
            self._map.madvise(mmap.MADV_DONTNEED)
        return found

    def expect(self, positions: np.ndarray) -> None:
        """Nothing needs to be done for pictures that are there."""


def fill(
    file: IO[bytes],
    samples: Sequence[Sample],
    size: Size,
    *,
    done: int = 0,
    faults: dict[int, Fault] | None = None,
    synced: Callable[[int, dict[int, Fault]], None] | None = None,
) -> dict[int, Fault]:
    """Decode all samples into an open file that is to become a .npy file, and return why some have no pixels.

    The first `done` are there already, except for `faults`. `synced` is told from time to time how many
    pictures from the beginning on are safe on the disk, and their faults. Raises OSError where the disk is
    full, as a rule before anything is decoded.
    """
    shape = (len(samples), *size)
    first, each = header(shape), int(np.prod(size))
    descriptor = file.fileno()
    _reserve(descriptor, file_bytes(shape))
    _write(descriptor, first, 0)
    step = max(1, min(PART_PICTURES, PART_BYTES // each))

    def decode(start: int) -> dict[int, Fault]:
        wanted = samples[start : start + step]
        rows = np.zeros((len(wanted), *size), dtype=np.uint8)
        found = decode_rows(wanted, rows)
        _write(descriptor, rows.data.cast("B"), len(first) + start * each)
        return {start + at: fault for at, fault in found.items()}

    faults = dict(faults or {})
    unsynced = 0
    told = portion = max(1024, len(samples) // 20)
    with quiet_pillow():
        for start, found in zip(
            starts := range(done, len(samples), step), in_order(decode, starts), strict=True
        ):
            faults |= found
            end = min(start + step, len(samples))
            unsynced += (end - start) * each
            if synced is not None and unsynced >= SYNC_BYTES:
                os.fdatasync(descriptor)
                synced(end, faults)
                unsynced = 0
            if end >= told and end < len(samples):
                log.info("decoded %s of %s pictures", f"{end:,}", f"{len(samples):,}")
                told += portion
    return faults


class Progress:
    """How far a file that is being filled has come, kept beside it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        # Always the same name: what a kill left of it is overwritten or cleared away.
        self._partial = path.with_name(f"{path.name}.new")

    def write(self, done: int, faults: dict[int, Fault]) -> None:
        """Note what is safe on the disk. A picture that may come back is not done, nor are those after it."""
        done = min([done, *(position for position, fault in faults.items() if fault.passing)])
        reasons = {position: fault.reason for position, fault in faults.items() if position < done}
        self._partial.write_text(json.dumps({"done": done, "broken": reasons}))
        self._partial.replace(self._path)

    def read(self, count: int) -> tuple[int, dict[int, Fault]]:
        """How many of `count` pictures are done, and the faults among them; 0 where the note is damaged."""
        try:
            noted = json.loads(self._path.read_bytes())
            faults = {int(at): Fault(str(reason), passing=False) for at, reason in noted["broken"].items()}
            done = int(noted["done"])
        except (OSError, ValueError, TypeError, KeyError, AttributeError):
            return 0, {}
        return (done, faults) if 0 <= done <= count else (0, {})

    def clear(self) -> None:
        """Forget it."""
        self._path.unlink(missing_ok=True)
        self._partial.unlink(missing_ok=True)


def _reserve(descriptor: int, size: int) -> None:
    """Give an open file this size, and its place on the disk where the file system can."""
    try:
        os.posix_fallocate(descriptor, 0, size)
    except OSError as error:
        if error.errno not in (errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL):
            raise
        os.ftruncate(descriptor, size)


def _write(descriptor: int, data: bytes | memoryview, offset: int) -> None:
    view = memoryview(data)
    while view:
        written = os.pwrite(descriptor, view, offset)
        view, offset = view[written:], offset + written
