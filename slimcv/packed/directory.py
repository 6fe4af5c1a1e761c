"""What a packed file holds: its blocks, and how the ONNX file is put together from them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from slimcv.packed import coders
from slimcv.packed.damage import Damaged
from slimcv.packed.decoding import Described, described
from slimcv.packed.encodings import Encoded
from slimcv.packed.varints import Numbers, varint

MANIFEST, SKELETON = 0, 1
"""Numbers of the blocks that are there always: the manifest, and the ONNX file without its tensors."""

_MANIFEST_BYTES = 1 << 20
SAMPLE_BYTES = 16 << 20
"""Golden samples may have this many bytes, decoded."""

MOST_BLOCKS, MOST_PARTS = 1 << 16, 1 << 14
"""Entries of a directory, each of which takes memory, whatever it says; further tensors stay in the graph."""

_SLACK_BYTES, _SLACK_RATIO = 1 << 20, 2
"""Streams together may be this much larger than the ONNX file: masks and codebooks stand beside values."""


@dataclass(frozen=True)
class Block:
    """One run of coded bytes in the file."""

    coder: int
    size: int
    packed_bytes: int


@dataclass(frozen=True)
class Part:
    """A tensor, and how many bytes of the skeleton stand before it."""

    gap: int
    tensor: Described


@dataclass(frozen=True)
class Directory:
    """Blocks in the order of the file, parts in that of the ONNX file.

    `samples` is the number of the block of golden samples, None where there are none.
    """

    blocks: tuple[Block, ...]
    parts: tuple[Part, ...]
    samples: int | None = None


def written(
    blocks: Sequence[Block], parts: Sequence[tuple[int, int, int, Encoded]], places: Sequence[int]
) -> bytes:
    """The bytes of a directory.

    Parts are gap, count, width and tensor; `places` are the blocks of all streams.
    """
    found = bytearray(varint(len(blocks)))
    for block in blocks:
        found.append(block.coder)
        found += varint(block.size) + varint(block.packed_bytes)
    found += varint(len(parts))
    left = iter(places)
    for gap, count, width, tensor in parts:
        found += varint(gap) + varint(count) + varint(width)
        inner: Encoded | None = tensor
        while inner is not None:
            found.append(inner.way)
            for number in inner.numbers:
                found += varint(number)
            for _ in inner.streams:
                found += varint(next(left))
            inner = inner.child
    return bytes(found)


def read(content: bytes, *, onnx_bytes: int, packed_bytes: int, has_samples: bool = False) -> Directory:
    """A directory whose sizes all agree: with each other, the header's `onnx_bytes` and the file's blocks.

    `packed_bytes` are those of all blocks; with `has_samples` the last one holds golden samples. Raises
    Damaged.
    """
    numbers = Numbers(content)
    blocks = tuple(
        Block(numbers.byte(), numbers.next(), numbers.next())
        for _ in range(_count(numbers, least_bytes=3, most=MOST_BLOCKS))
    )
    samples = len(blocks) - 1 if has_samples else None
    if (samples or len(blocks)) <= SKELETON:
        raise Damaged("it has no graph")
    if sum(block.packed_bytes for block in blocks) != packed_bytes:
        raise Damaged("its blocks have another size than the directory says")
    if any(block.coder not in coders.NAMES for block in blocks):
        raise Damaged("a block has a coder that does not exist")
    if any(not block.size for block in blocks[SKELETON + 1 :]):
        raise Damaged("a block has nothing in it")
    if blocks[MANIFEST].size > _MANIFEST_BYTES:
        raise Damaged("its manifest is too large")
    if samples is not None and blocks[samples].size > SAMPLE_BYTES:
        raise Damaged("its golden samples are too large")
    if sum(block.size for block in blocks[:samples]) > _SLACK_RATIO * onnx_bytes + _SLACK_BYTES:
        raise Damaged("its blocks declare more than the model can need")
    parts, left = [], onnx_bytes
    for _ in range(_count(numbers, least_bytes=5, most=MOST_PARTS)):
        gap, count, width = numbers.next(), numbers.next(), numbers.next()
        if not count:
            raise Damaged("a tensor has no elements")
        left -= gap + count * width
        if width not in (1, 2, 4, 8) or left < 0:
            raise Damaged("its tensors are larger than the model")
        parts.append(Part(gap, described(numbers, count=count, width=width)))
    if numbers.left:
        raise Damaged("its directory goes on after its end")
    if blocks[SKELETON].size != onnx_bytes - sum(part.tensor.count * part.tensor.width for part in parts):
        raise Damaged("its graph and tensors do not add up to the model")
    _require_used(blocks[:samples], parts)
    return Directory(blocks, tuple(parts), samples)


def _count(numbers: Numbers, *, least_bytes: int, most: int) -> int:
    """How many entries follow; no more than there are bytes for, and than any file needs."""
    count = numbers.next()
    if count * least_bytes > numbers.left:
        raise Damaged("its directory declares more entries than it has")
    if count > most:
        raise Damaged(f"its directory declares more than {most:,} entries of a kind")
    return count


def _require_used(blocks: Sequence[Block], parts: Sequence[Part]) -> None:
    """Streams take exactly what their blocks have."""
    taken = [block.size if number <= SKELETON else 0 for number, block in enumerate(blocks)]
    for part in parts:
        for number, size in part.tensor.every_stream():
            if not SKELETON < number < len(blocks):
                raise Damaged("a tensor is in a block that does not exist")
            taken[number] += size
    if any(size != block.size for size, block in zip(taken, blocks, strict=True)):
        raise Damaged("its blocks have another size than their tensors")
