"""The entropy coders of a block: none, Zstandard (RFC 8878), and LZMA for small blocks.

LZMA's literals are arithmetic-coded, which suits the names of a graph better than Huffman codes do.
"""

from __future__ import annotations

import lzma

import zstandard

from slimcv.packed.damage import Damaged

STORED, ZSTANDARD, LZMA = 0, 1, 2
NAMES = {STORED: "stored", ZSTANDARD: "zstd", LZMA: "lzma"}

LEVEL, ESTIMATE_LEVEL = 22, 12
_MAGIC = zstandard.FRAME_HEADER
_WINDOW_LOG = 23
"""8 MiB: what any decoder of Zstandard accepts (RFC 8878, section 3.1.1.1.2)."""

LARGEST_LZMA = 1 << 20
_FILTER = {"id": lzma.FILTER_LZMA1, "dict_size": LARGEST_LZMA, "lc": 0, "lp": 0, "pb": 0}
_ENCODER = {**_FILTER, "preset": 9 | lzma.PRESET_EXTREME}


def smallest(content: bytes) -> tuple[int, bytes]:
    """The coder that makes the fewest bytes of it, and those."""
    found = [(STORED, content)]
    if content:
        found.append((ZSTANDARD, zstandard_of(content, level=LEVEL)))
    if len(content) <= LARGEST_LZMA and len(found[-1][1]) < len(content):  # LZMA is slow on noise.
        found.append((LZMA, lzma.compress(content, lzma.FORMAT_RAW, filters=[_ENCODER])))
    return min(found, key=lambda pair: len(pair[1]))


def zstandard_of(content: bytes, *, level: int) -> bytes:
    """A frame without its first four bytes, which are the same in all, and without a checksum."""
    given = zstandard.ZstdCompressionParameters.from_level(level, source_size=len(content))
    parameters = zstandard.ZstdCompressionParameters.from_level(
        level,
        source_size=len(content),
        window_log=min(given.window_log, _WINDOW_LOG),
        write_content_size=True,
        write_checksum=False,
        write_dict_id=False,
    )
    frame = zstandard.ZstdCompressor(compression_params=parameters).compress(content)
    return frame[len(_MAGIC) :]


def decoded(coder: int, packed: bytes, size: int) -> bytes:
    """The `size` bytes that `packed` stands for. Raises Damaged where it stands for anything else.

    No more memory is taken than for `size` bytes and a window of 8 MiB.
    """
    if coder == STORED:
        found = packed
    elif coder == ZSTANDARD:
        found = _from_zstandard(packed, size)
    elif coder == LZMA:
        found = _from_lzma(packed, size)
    else:
        raise Damaged(f"no coder has the number {coder}")
    if len(found) != size:
        raise Damaged("a block has another size than the directory says")
    return found


def _from_zstandard(packed: bytes, size: int) -> bytes:
    frame = _MAGIC + packed
    try:
        # The library reserves what the frame itself declares, before it reads on.
        declared = zstandard.get_frame_parameters(frame).content_size
        if declared != size:
            raise Damaged("a block has another size than the directory says")
        decompressor = zstandard.ZstdDecompressor(max_window_size=1 << _WINDOW_LOG)
        return decompressor.decompress(frame, allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise Damaged(f"a block cannot be decoded ({error})") from error


def _from_lzma(packed: bytes, size: int) -> bytes:
    if size > LARGEST_LZMA:
        raise Damaged("a block is too large for its coder")
    decompressor = lzma.LZMADecompressor(lzma.FORMAT_RAW, filters=[_FILTER])
    try:
        found = decompressor.decompress(packed, max_length=size + 1)
        if not decompressor.eof and len(found) == size:
            found += decompressor.decompress(b"", max_length=1)  # The mark of the end may still be unread.
    except (lzma.LZMAError, EOFError) as error:
        raise Damaged(f"a block cannot be decoded ({error})") from error
    if not decompressor.eof or decompressor.unused_data:
        raise Damaged("a block does not end where it should")
    return found
