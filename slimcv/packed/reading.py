"""A packed file opened: everything it declares is checked before any of it is unpacked."""

from __future__ import annotations

import bisect
import hashlib
import zlib
from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import BinaryIO

import numpy as np

from slimcv.packed import coders, decoding, directory, header, wire
from slimcv.packed.damage import Damaged
from slimcv.packed.directory import MANIFEST, SKELETON, Block, Part

_CHUNK_BYTES = 1 << 18


class Reader:
    """An open packed file, which must stay open for as long as it is read from.

    `limit` is the most bytes of ONNX it may unpack to, by default what `header.default_limit` says. Raises
    Damaged, Newer or TooLarge.
    """

    def __init__(self, file: BinaryIO, *, limit: int | None = None) -> None:
        size = file.seek(0, 2)
        file.seek(0)
        self._file = file
        self._header = header.read(file.read(header.BYTES), file_bytes=size, limit=limit)
        if _rest_crc32(file) != self._header.content_crc32:
            raise Damaged("it was altered or damaged on its way (the checksum differs)")
        listing = coders.decoded(
            self._header.directory_coder,
            self._read(header.BYTES, self._header.directory_packed_bytes),
            self._header.directory_bytes,
        )
        start = header.BYTES + self._header.directory_packed_bytes
        self._directory = directory.read(
            listing,
            onnx_bytes=self.onnx_bytes,
            packed_bytes=size - start,
            has_samples=self._header.has_samples,
        )
        blocks = self._directory.blocks
        self._starts = list(accumulate((block.packed_bytes for block in blocks), initial=start))
        self.manifest = self._block(MANIFEST)
        self._skeleton = self._block(SKELETON)
        _require_graph(self._skeleton, self._directory.parts)

    @property
    def onnx_bytes(self) -> int:
        """Size of the ONNX file."""
        return self._header.onnx_bytes

    @property
    def sha256(self) -> bytes:
        """SHA-256 of the ONNX file, which `pieces` compares."""
        return self._header.sha256

    @property
    def blocks(self) -> Sequence[Block]:
        """As they are listed."""
        return self._directory.blocks

    def samples(self) -> bytes:
        """The golden samples as they were given to `packing.packed`; nothing where it has none."""
        number = self._directory.samples
        return b"" if number is None else self._block(number)

    def pieces(self) -> Iterator[bytes | memoryview]:
        """The ONNX file, piece by piece; no more than a tensor and the blocks it is in are held at a time.

        Raises Damaged, at the end too: what was yielded counts only once all of it was.
        """
        digest = hashlib.sha256()
        for piece in self._pieces():
            digest.update(piece)
            yield piece
        if digest.digest() != self._header.sha256:
            raise Damaged("the model is not the one that was packed (its SHA-256 differs)")

    def _pieces(self) -> Iterator[bytes | memoryview]:
        open_blocks: dict[int, tuple[bytes, int]] = {}

        def take(number: int, size: int) -> memoryview:
            if not size:
                return memoryview(b"")  # The block may be used up, and is not decoded again for nothing.
            known = open_blocks.pop(number, None)
            content, at = known if known is not None else (self._block(number), 0)
            if at + size < len(content):
                open_blocks[number] = (content, at + size)
            return memoryview(content)[at : at + size]

        at = 0
        for part in self._directory.parts:
            yield self._skeleton[at : at + part.gap]
            at += part.gap
            yield decoding.elements(part.tensor, take).view(np.uint8).data
        yield self._skeleton[at:]

    def _block(self, number: int) -> bytes:
        block = self._directory.blocks[number]
        return coders.decoded(block.coder, self._read(self._starts[number], block.packed_bytes), block.size)

    def _read(self, start: int, size: int) -> bytes:
        self._file.seek(start)
        return self._file.read(size)


def _rest_crc32(file: BinaryIO) -> int:
    crc = 0
    while piece := file.read(_CHUNK_BYTES):
        crc = zlib.crc32(piece, crc)
    return crc


def _require_graph(skeleton: bytes, parts: Sequence[Part]) -> None:
    """The skeleton must be an ONNX model without tensors in other files, the parts its tensors' elements."""
    model = _Gapped(skeleton, parts)
    try:
        sound = wire.are_tensors(model, set(model.gaps))
    except wire.NotOnnx as error:
        raise Damaged(error.message) from error
    if not sound:
        raise Damaged("a tensor stands where the graph has none")


class _Gapped:
    """The skeleton, addressed as the whole file: the bytes of tensors are not there to be read."""

    def __init__(self, skeleton: bytes, parts: Sequence[Part]) -> None:
        lengths = [part.tensor.count * part.tensor.width for part in parts]
        before = list(accumulate(part.gap for part in parts))
        moved = list(accumulate(lengths, initial=0))
        self._skeleton = skeleton
        self._starts = [place + shift for place, shift in zip(before, moved, strict=False)]
        self._moved = moved
        self.gaps = list(zip(self._starts, lengths, strict=True))

    def __len__(self) -> int:
        return len(self._skeleton) + self._moved[-1]

    def __getitem__(self, place: int) -> int:
        number = bisect.bisect_right(self._starts, place)
        if number and place < self._starts[number - 1] + self.gaps[number - 1][1]:
            raise Damaged("a tensor stands where the graph should be")
        return self._skeleton[place - self._moved[number]]
