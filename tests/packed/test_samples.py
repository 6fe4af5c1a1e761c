"""Golden samples in a packed file: the very same come out, in fewer bytes, beside the same model."""

import io
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slimcv import packed
from slimcv.data import synthetic
from slimcv.packed import directory, header, packing, samples
from slimcv.packed.damage import Damaged
from slimcv.packed.reading import Reader
from slimcv.packed.varints import Numbers, varint
from slimcv.step import InputSpec

from .conftest import forged, opened, unpacked


def made(count=4, height=24, width=20, channels=3, classes=5):
    pixels = synthetic.pictures(count, InputSpec(channels, height, width), seed=0)
    outputs = np.random.default_rng(0).standard_normal((count, classes)).astype(np.float32)
    return pixels, outputs


@settings(deadline=None, max_examples=50)
@given(st.tuples(*[st.integers(1, 6)] * 5), st.integers(0, 2**32 - 1))
def test_any_pictures_and_outputs_come_back(shape, seed):
    random = np.random.default_rng(seed)
    pixels = random.integers(0, 256, shape[:4], dtype=np.uint8)
    outputs = np.frombuffer(random.bytes(4 * shape[0] * shape[4]), "<f4").reshape(shape[0], shape[4])
    found = samples.read(samples.written(pixels, outputs))
    assert (found[0] == pixels).all()
    assert found[1].tobytes() == outputs.tobytes()


def test_they_stand_in_the_file_beside_the_same_model(int8_model):
    model = int8_model.read_bytes()
    content = samples.written(*made())
    found = packing.packed(memoryview(model), b"", content)
    alone = packing.packed(memoryview(model), b"")
    assert unpacked(found.written) == model
    assert Reader(io.BytesIO(found.written)).samples() == content
    assert Reader(io.BytesIO(alone.written)).samples() == b""
    assert found.tensor_bytes == alone.tensor_bytes
    assert alone.sample_bytes == 0
    grown = len(found.written) - len(alone.written)
    assert found.sample_bytes <= grown <= found.sample_bytes + 16


def test_pictures_take_fewer_bytes_than_in_an_archive():
    pixels, outputs = made(count=8, height=64, width=64)
    archive = io.BytesIO()
    np.savez_compressed(archive, pixels=pixels)
    _, packed_samples = packing.coders.smallest(samples.written(pixels, outputs))
    assert len(packed_samples) < 0.9 * len(archive.getvalue())


def test_no_more_are_taken_than_a_reader_accepts():
    pixels = np.zeros((16, 1024, 1024, 3), np.uint8)
    content = samples.written(pixels, np.zeros((16, 10), np.float32))
    assert len(content) <= directory.SAMPLE_BYTES
    assert len(samples.read(content)[0]) == 5
    assert samples.written(np.zeros((0, 8, 8, 3), np.uint8), np.zeros((0, 10), np.float32)) == b""


@pytest.mark.parametrize(
    "content",
    [
        b"",
        bytes(20),
        struct.pack("<5I", 1, 3, 2, 2, 4) + bytes(27),
        struct.pack("<5I", 1 << 31, 1 << 31, 1 << 31, 1 << 31, 4) + bytes(28),
        struct.pack("<5I", 1, 3, 0, 2, 4) + bytes(16),
    ],
)
def test_samples_that_lie_about_their_size_are_refused(content):
    with pytest.raises(Damaged, match="golden samples"):
        samples.read(content)


def test_a_flag_without_its_block_and_a_block_too_large_are_refused(int8_model):
    model = memoryview(int8_model.read_bytes())
    with pytest.raises(Damaged):
        unpacked(forged(packing.packed(model, b"").written, has_samples=True))
    found = packing.packed(model, b"", samples.written(*made())).written
    with pytest.raises(Damaged):
        unpacked(forged(found, has_samples=False))
    head, listing, _ = opened(found)
    assert unpacked(forged(found, has_samples=True)) == bytes(model)
    read = directory.read(
        listing, onnx_bytes=head.onnx_bytes, packed_bytes=_blocks_bytes(found, head), has_samples=True
    )
    blocks = [*read.blocks[:-1], directory.Block(0, directory.SAMPLE_BYTES + 1, read.blocks[-1].packed_bytes)]
    lying = _with_blocks(listing, blocks)
    with pytest.raises(Damaged, match="golden samples are too large"):
        unpacked(forged(found, listing=lying, has_samples=True))


def _blocks_bytes(content, head):
    return len(content) - header.BYTES - head.directory_packed_bytes


def _with_blocks(listing, blocks):
    """The directory with other blocks in front of the same tensors."""
    numbers = Numbers(listing)
    for _ in range(numbers.next()):
        for read in (numbers.byte, numbers.next, numbers.next):
            read()
    tensors = listing[len(listing) - numbers.left :]
    coded = b"".join(bytes([b.coder]) + varint(b.size) + varint(b.packed_bytes) for b in blocks)
    return varint(len(blocks)) + coded + tensors


def test_a_file_without_them_is_as_it_was(int8_model, tmp_path):
    packed.pack(int8_model, out=tmp_path / "model.slim")
    assert packed.read_samples(tmp_path / "model.slim") is None
    assert (tmp_path / "model.slim").read_bytes()[10:12] == bytes(2)
