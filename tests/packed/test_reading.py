"""A packed file that was cut, altered or made to harm is refused before it costs anything."""

import dataclasses
import hashlib
import io
import struct
import tracemalloc
import zlib
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from slimcv.errors import SlimcvError
from slimcv.packed import coders, directory, header, packing, wire
from slimcv.packed.damage import Damaged, Newer, TooLarge
from slimcv.packed.encodings import Way
from slimcv.packed.reading import Reader
from slimcv.packed.varints import varint

from .conftest import forged, opened, sealed, unpacked, with_tensors

MODEL = with_tensors((TensorProto.INT8, np.arange(-60, 60, dtype=np.int8)), (TensorProto.FLOAT, bytes(40)))
PACKED = packing.packed(memoryview(MODEL), b"").written


def test_a_file_that_ends_early_is_refused_wherever_it_ends():
    for end in range(len(PACKED)):
        with pytest.raises(Damaged):
            unpacked(PACKED[:end])
    with pytest.raises(Damaged):
        unpacked(PACKED + b"\0")


def test_any_changed_bit_is_found(content):
    for place in [*range(header.BYTES), *range(header.BYTES, len(content), 199)]:
        changed = bytearray(content)
        changed[place] ^= 1 << place % 8
        with pytest.raises(Damaged):
            unpacked(bytes(changed))


@settings(deadline=None, max_examples=300)
@given(st.data())
def test_changes_that_keep_the_checksums_give_the_same_model_or_one_error(data):
    """Someone who alters a file can write the right checksums too."""
    changed = bytearray(PACKED[header.BYTES :])
    for _ in range(data.draw(st.integers(1, 4))):
        changed[data.draw(st.integers(0, len(changed) - 1))] = data.draw(st.integers(0, 255))
    with suppress(SlimcvError):
        assert unpacked(sealed(opened(PACKED)[0], bytes(changed))) == MODEL


@settings(deadline=None, max_examples=300)
@given(st.data())
def test_a_directory_of_other_numbers_gives_the_same_model_or_one_error(data):
    listing = bytearray(opened(PACKED)[1])
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(listing) - 1))
        number = varint(data.draw(st.integers(0, 2**64 - 1) | st.integers(0, 300)))
        listing[place : place + data.draw(st.integers(0, 2))] = number
    with suppress(SlimcvError):
        assert unpacked(forged(PACKED, listing=bytes(listing))) == MODEL


@settings(deadline=None)
@given(st.binary(max_size=300))
def test_any_other_bytes_are_refused(content):
    for each in (content, header.MAGIC + content, PACKED[: header.BYTES] + content):
        with pytest.raises(Damaged):
            unpacked(each)


def listed(blocks, *parts):
    """A directory as it is written: pairs of size and packed size, and numbers of tensors."""
    numbers = b"".join(b"\0" + varint(size) + varint(packed) for size, packed in blocks)
    return varint(len(blocks)) + numbers + varint(len(parts)) + b"".join(
        varint(int(number)) for part in parts for number in part
    )  # fmt: skip


SKELETON = with_tensors((TensorProto.INT8, b"12345678"))
GAP = SKELETON.index(b"12345678")
CUT = SKELETON.replace(b"12345678", b"")


def made(*, blocks=None, part=(GAP, 8, 1, Way.RAW, 2), content=b"12345678", onnx_bytes=None, skeleton=CUT):
    """A file that is sound as it comes by default."""
    blocks = blocks or [(0, 0), (len(skeleton), len(skeleton)), (len(content), len(content))]
    onnx_bytes = len(skeleton) + 8 if onnx_bytes is None else onnx_bytes
    sha256 = hashlib.sha256(SKELETON).digest()
    return forged(
        PACKED, listing=listed(blocks, part), blocks=skeleton + content, onnx_bytes=onnx_bytes, sha256=sha256
    )


def test_a_file_made_by_hand_from_the_description_of_the_format_is_read():
    assert unpacked(made()) == SKELETON


HUGE = 1 << 40
LIES = {
    "a model beyond the limit": {"onnx_bytes": HUGE},
    "a model larger than its parts": {"onnx_bytes": len(SKELETON) + 1},
    "a tensor larger than the model": {"part": (GAP, HUGE, 8, Way.CONSTANT, 2)},
    "a count that overflows": {"part": (GAP, 2**61 + 1, 8, Way.CONSTANT, 2)},
    "a width of zero": {"part": (GAP, 8, 0, Way.RAW, 2)},
    "a width of three": {"part": (GAP, 8, 3, Way.RAW, 2)},
    "a gap beyond the graph": {"part": (HUGE, 8, 1, Way.RAW, 2)},
    "a block that is not there": {"part": (GAP, 8, 1, Way.RAW, 3)},
    "the graph as weights": {"part": (GAP, 8, 1, Way.RAW, 1)},
    "a block larger than the file": {"blocks": [(0, 0), (len(CUT), len(CUT)), (8, HUGE)]},
    "a block that unpacks to anything": {"blocks": [(0, 0), (len(CUT), len(CUT)), (HUGE, 8)]},
    "a large manifest": {"blocks": [(2 << 20, 0), (len(CUT), len(CUT)), (8, 8)]},
    "no graph": {"blocks": [(0, 0)]},
    "a tensor amid the graph": {"part": (GAP - 3, 8, 1, Way.RAW, 2)},
    "a tensor before the graph": {"part": (0, 8, 1, Way.RAW, 2)},
    "other weights": {"content": b"12345679"},
    "rows of nothing": {
        "part": (GAP, 8, 1, Way.MASKED, 0, 2, Way.TRANSPOSED, 2**63, Way.RAW, 2),
        "content": b"\0",
    },
}


@pytest.mark.parametrize("lie", LIES)
def test_a_file_that_lies_with_right_checksums_is_refused_at_no_cost(lie):
    content = made(**LIES[lie])
    tracemalloc.start()
    try:
        with pytest.raises((Damaged, TooLarge)):
            unpacked(content)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


MANY = 1 << 22
ONE_VALUE = (Way.CONSTANT, 2)
COSTLY = {
    "a row for each element": (1, (Way.ROW_CODEBOOKS, MANY, MANY, 2, 2, *ONE_VALUE), 2 * MANY + 1),
    "one long row": (1, (Way.ROW_CODEBOOKS, 1, 1, 2, 2, *ONE_VALUE), 3),
    "a gap for each element": (1, (Way.GAPS, MANY, MANY, 2, *ONE_VALUE), MANY + 1),
    "an index for each element": (1, (Way.CODEBOOK, 1, 2, *ONE_VALUE), 2),
    "a mask": (1, (Way.MASKED, 0, 2, *ONE_VALUE), MANY // 8 + 1),
    "rotated bytes": (8, (Way.ROTATED, *[2] * 8), MANY),
    "bits of each element": (1, (Way.NARROW, 1, 0, 2), MANY // 8),
    "turned three times": (1, (Way.TRANSPOSED, 2, Way.TRANSPOSED, 4, Way.TRANSPOSED, 8, *ONE_VALUE), 1),
}
"""Bytes of an element, the tensor and the bytes of its block, all of them zero as all elements are."""


@pytest.mark.parametrize("name", COSTLY)
def test_a_sound_tensor_takes_no_more_than_a_few_times_its_bytes(name):
    width, tensor, block_bytes = COSTLY[name]
    model = with_tensors((TensorProto.INT8, bytes(MANY)))
    gap = model.index(bytes(MANY))
    skeleton = model[:gap] + model[gap + MANY :]
    sizes = [0, len(skeleton), block_bytes]
    listing = listed([(size, size) for size in sizes], (gap, MANY // width, width, *tensor))
    blocks, sha256 = skeleton + bytes(block_bytes), hashlib.sha256(model).digest()
    content = forged(PACKED, listing=listing, blocks=blocks, onnx_bytes=len(model), sha256=sha256)
    tracemalloc.start()
    try:
        read = sum(len(piece) for piece in Reader(io.BytesIO(content)).pieces())
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert read == len(model)
    assert peak - len(content) < 3 * MANY + (1 << 20)


@pytest.mark.parametrize("number", [2**20, 2**63, 2**64 - 1])
def test_a_directory_that_declares_entries_it_does_not_have_is_refused(number):
    for listing in (varint(number), listed([(0, 0), (5, 5)])[:-1] + varint(number)):
        with pytest.raises(Damaged, match="more entries"):
            unpacked(forged(PACKED, listing=listing, blocks=b"graph"))


@pytest.mark.parametrize(
    ("blocks", "parts"),
    [(directory.MOST_BLOCKS + 1, 0), (3, directory.MOST_PARTS + 1)],
    ids=["blocks", "tensors"],
)
def test_entries_that_are_there_and_say_nothing_are_refused_by_their_number(blocks, parts):
    sizes = [(0, 0), (5, 5), (1, 1 << 16), *[(0, 0)] * (blocks - 3)]
    listing = listed(sizes, *[(0, 0, 1, Way.RAW, 2)] * parts)
    coded = coders.zstandard_of(listing, level=19)
    head = dataclasses.replace(
        opened(PACKED)[0], directory_coder=coders.ZSTANDARD, directory_bytes=len(listing), onnx_bytes=5,
        directory_packed_bytes=len(coded),
    )  # fmt: skip
    content = sealed(head, coded + b"graph" + bytes(1 << 16))
    tracemalloc.start()
    try:
        with pytest.raises(Damaged, match="entries of a kind"):
            unpacked(content)
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()


def test_tensors_and_blocks_of_nothing_are_refused():
    blocks = [(0, 0), (len(CUT), len(CUT)), (0, 8)]
    with pytest.raises(Damaged, match="a block has nothing in it"):
        unpacked(made(blocks=blocks, part=(GAP, 8, 1, Way.MASKED, 0, 2, Way.RAW, 2)))
    with pytest.raises(Damaged, match="a tensor has no elements"):
        unpacked(made(part=(GAP, 0, 1, Way.RAW, 2)))


def test_a_directory_that_unpacks_to_anything_is_refused_unread():
    bomb = coders.zstandard_of(bytes(64 << 20), level=1)
    head = opened(PACKED)[0]
    changes = {"directory_coder": coders.ZSTANDARD, "directory_packed_bytes": len(bomb)}
    head = dataclasses.replace(head, directory_bytes=64 << 20, **changes)
    with pytest.raises(Damaged, match="more than a file of this size"):
        unpacked(sealed(head, bomb))


def test_a_graph_that_points_to_other_files_is_refused_before_its_tensors_are_read():
    tensor = numpy_helper.from_array(np.zeros(2, np.float32), "t")
    tensor.ClearField("raw_data")
    tensor.external_data.add(key="location", value="../../etc/passwd")
    graph = helper.make_graph([], "g", [], [], [tensor])
    skeleton = helper.make_model(graph).SerializeToString()
    listing = listed([(0, 0), (len(skeleton), len(skeleton))])
    content = forged(PACKED, listing=listing, blocks=skeleton, onnx_bytes=len(skeleton))
    with pytest.raises(Damaged, match="other files"):
        Reader(io.BytesIO(content))


@pytest.mark.parametrize(
    ("place", "said"), [(8, "in version 2 of the format"), (10, "flags .* not in version 1")]
)
def test_another_version_and_flags_to_come_are_named_and_are_no_damage(place, said):
    changed = bytearray(PACKED)
    changed[place] = 2
    changed[76:80] = struct.pack("<I", zlib.crc32(changed[:76]))
    with pytest.raises(Newer, match=said) as caught:
        unpacked(bytes(changed))
    assert "update slimcv" in caught.value.hint


def test_what_is_looked_for_in_a_graph_is_all_that_is_remembered_of_it():
    tensor = b"\x4a\x00" * 100_000  # So many empty fields `raw_data`.
    graph = b"\x2a" + varint(len(tensor)) + tensor
    content = packing.packed(memoryview(b"\x3a" + varint(len(graph)) + graph), b"").written
    tracemalloc.start()
    try:
        Reader(io.BytesIO(content))
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()


class Counted(io.BytesIO):
    """A file that counts the bytes which are read of it."""

    count = 0

    def read(self, size=-1):
        found = super().read(size)
        self.count += len(found)
        return found


def test_a_block_is_not_decoded_again_for_streams_of_nothing():
    first, masks = np.random.default_rng(0).bytes(1 << 16), bytes(50)
    model = with_tensors((TensorProto.INT8, first), *[(TensorProto.INT8, bytes(8))] * len(masks))
    skeleton, parts, end = b"", [], 0
    for number, span in enumerate(wire.spans(model)):
        way = (Way.MASKED, 0, 3, Way.RAW, 2) if number else (Way.RAW, 2)
        parts.append((span.start - end, span.length, 1, *way))
        skeleton, end = skeleton + model[end : span.start], span.start + span.length
    skeleton += model[end:]
    blocks = (skeleton, first, masks)
    content = forged(
        PACKED,
        listing=listed([(0, 0), *((len(block), len(block)) for block in blocks)], *parts),
        blocks=b"".join(blocks),
        onnx_bytes=len(model),
        sha256=hashlib.sha256(model).digest(),
    )
    file = Counted(content)
    assert b"".join(map(bytes, Reader(file).pieces())) == model
    assert file.count < 2.5 * len(content), "once for the checksum, once for what is in it"


def test_a_large_model_in_a_small_file_needs_a_limit_of_its_own():
    model = with_tensors((TensorProto.FLOAT, np.zeros((header.ALWAYS_BYTES >> 2) + 1, np.float32)))
    content = packing.packed(memoryview(model), b"").written
    assert len(content) < 1000
    with pytest.raises(TooLarge, match="allowed"):
        unpacked(content)
    assert unpacked(content, limit=len(model)) == model
    with pytest.raises(TooLarge):
        unpacked(content, limit=len(model) - 1)


def test_the_limit_follows_the_size_of_the_file():
    assert header.default_limit(100) == header.ALWAYS_BYTES
    assert header.default_limit(1 << 20) == header.LARGEST_RATIO << 20
    assert header.default_limit(1 << 30) == header.MOST_BYTES


def test_no_more_than_a_few_tensors_are_in_memory_at_a_time():
    random = np.random.default_rng(0)
    tensors = [(TensorProto.INT8, random.bytes(1 << 18)) for _ in range(16)]
    content = packing.packed(memoryview(with_tensors(*tensors)), b"").written
    tracemalloc.start()
    try:
        for _ in Reader(io.BytesIO(content)).pieces():
            pass
        assert tracemalloc.get_traced_memory()[1] < 3 << 19
    finally:
        tracemalloc.stop()
