"""The first 80 bytes of a packed file, and what a reader accepts in them."""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass, replace

from slimcv.packed.damage import Damaged, Newer, TooLarge

MAGIC = b"\x89SLIM\r\n\x1a"
"""Not text, and spoilt by whatever changes line ends or strips the eighth bit (as in PNG, RFC 2083)."""

VERSION = 1
WITH_SAMPLES = 1
"""Flag: the last block holds golden samples."""

_LAYOUT = struct.Struct("<8sHHQQIIB3x32sI")
BYTES = _LAYOUT.size + 4

MOST_BYTES = 2 << 30
"""The most a reader unpacks unasked: protocol buffers end at 2 GB."""

ALWAYS_BYTES = 64 << 20
"""What any file may unpack to, however small it is."""

LARGEST_RATIO = 1000
"""How many times its own size a file may unpack to beyond that."""

_DIRECTORY_BYTES, _DIRECTORY_RATIO, _MOST_DIRECTORY_BYTES = 1 << 16, 16, 4 << 20


@dataclass(frozen=True)
class Header:
    """Sizes and checksums.

    `content_crc32` is of all bytes after the header, `sha256` of the ONNX file. `has_samples`: the last block
    holds golden samples.
    """

    file_bytes: int
    onnx_bytes: int
    directory_packed_bytes: int
    directory_bytes: int
    directory_coder: int
    sha256: bytes
    content_crc32: int
    has_samples: bool = False

    def written(self) -> bytes:
        """As it stands in the file."""
        content = _LAYOUT.pack(
            MAGIC,
            VERSION,
            WITH_SAMPLES if self.has_samples else 0,
            self.file_bytes,
            self.onnx_bytes,
            self.directory_packed_bytes,
            self.directory_bytes,
            self.directory_coder,
            self.sha256,
            self.content_crc32,
        )
        return content + struct.pack("<I", zlib.crc32(content))


def default_limit(file_bytes: int) -> int:
    """The most bytes of ONNX that a file of this size may unpack to unasked."""
    return min(MOST_BYTES, max(ALWAYS_BYTES, LARGEST_RATIO * file_bytes))


def read(content: bytes, *, file_bytes: int, limit: int | None) -> Header:
    """The header of a file of this size, from its first bytes.

    `limit` in bytes takes the place of `default_limit`. Raises Damaged, Newer where a later version of the
    format has to be known, or TooLarge where more is declared.
    """
    if not content.startswith(MAGIC[: max(1, len(content))]):
        raise Damaged("it does not begin like one")
    if len(content) < BYTES:
        raise Damaged("it is cut short")
    magic, version, flags, size, onnx_bytes, *rest = _LAYOUT.unpack_from(content)
    (crc,) = struct.unpack_from("<I", content, _LAYOUT.size)
    if magic != MAGIC:
        raise Damaged("it does not begin like one")
    if zlib.crc32(content[: _LAYOUT.size]) != crc:
        raise Damaged("its header was altered")
    if version != VERSION:
        raise Newer(f"in version {version} of the format")
    if flags & ~WITH_SAMPLES:
        raise Newer(f"with flags ({flags:#06x}) that are not in version {VERSION} of the format")
    header = replace(Header(size, onnx_bytes, *rest), has_samples=bool(flags))
    if size != file_bytes:
        raise Damaged(f"it has {file_bytes} bytes and declares {size}")
    if header.directory_packed_bytes > file_bytes - BYTES:
        raise Damaged("its directory leaves the file")
    if header.directory_bytes > min(_MOST_DIRECTORY_BYTES, _DIRECTORY_BYTES + _DIRECTORY_RATIO * file_bytes):
        raise Damaged("its directory declares more than a file of this size can need")
    allowed = default_limit(file_bytes) if limit is None else limit
    if onnx_bytes > allowed:
        raise TooLarge(
            f"the packed model declares {onnx_bytes:,} bytes, more than the {allowed:,} allowed here",
            "if you trust it, write the ONNX file with slimcv unpack --limit SIZE",
        )
    return header
