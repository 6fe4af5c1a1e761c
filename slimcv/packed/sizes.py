"""Honest sizes: bytes of a file, of the same file zipped, and of an ONNX file packed."""

from __future__ import annotations

import logging
import zlib
from dataclasses import dataclass
from pathlib import Path

from slimcv.errors import SlimcvError
from slimcv.measure.size import artifact_files

LEVEL = 9
"""Of deflate: as small as zip makes it."""

TOLD_BYTES = 1 << 25
"""Zipping what is larger takes long enough to say how far it is."""

_CHUNK_BYTES = 1 << 20

log = logging.getLogger("slimcv")


@dataclass(frozen=True)
class Sizes:
    """Bytes of a file, and of the same file zipped (deflate, level 9)."""

    path: str
    bytes: int
    zipped_bytes: int


def sizes_of(path: Path) -> Sizes:
    """A file is read in pieces of a megabyte, a folder's or an OpenVINO model's files together.

    Raises SlimcvError where one cannot be read.
    """
    size = zipped = 0
    for file in artifact_files(path):
        deflate = zlib.compressobj(LEVEL, zlib.DEFLATED, -zlib.MAX_WBITS)
        try:
            whole, read = file.stat().st_size, 0
            if whole > TOLD_BYTES:
                log.info("zipping %s, %.0f MB, to compare its size", file.name, whole / 1e6)
            with file.open("rb") as stream:
                while piece := stream.read(_CHUNK_BYTES):
                    zipped += len(deflate.compress(piece))
                    read += len(piece)
                    if whole > TOLD_BYTES:
                        log.debug("zipping: %.0f %%", 100 * read / whole, extra={"live": True})
        except OSError as error:
            raise unreadable(file, error) from error
        size += read
        zipped += len(deflate.flush())
    return Sizes(str(path), size, zipped)


def unreadable(path: Path, error: OSError) -> SlimcvError:
    """What to say of a file that the system does not give."""
    return SlimcvError(f"{path}: {error.strerror or error}", "name a file that exists and may be read")
