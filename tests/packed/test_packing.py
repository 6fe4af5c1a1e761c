"""The packed file of a model: the very same bytes come out, and there are few of them."""

import zlib

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto

from slimcv.packed import directory, packing
from slimcv.packed.wire import NotOnnx

from .conftest import unpacked, with_tensors

WIDTHS = {
    TensorProto.FLOAT: 4,
    TensorProto.FLOAT16: 2,
    TensorProto.BFLOAT16: 2,
    TensorProto.DOUBLE: 8,
    TensorProto.INT8: 1,
    TensorProto.UINT8: 1,
    TensorProto.INT64: 8,
    TensorProto.BOOL: 1,
    TensorProto.INT4: 1,
}


def packed(content):
    return packing.packed(memoryview(content), b"").written


@st.composite
def models(draw):
    """Tensors of all types and shapes, 0-d and empty ones too, of any bits, few different ones or zeros."""
    tensors = []
    for _ in range(draw(st.integers(0, 4))):
        kind = draw(st.sampled_from(sorted(WIDTHS)))
        shape = draw(st.lists(st.integers(0, 9), max_size=4))
        random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
        count = int(np.prod(shape, dtype=int))
        any_ = np.frombuffer(random.bytes(max(1, count) * WIDTHS[kind]), f"V{WIDTHS[kind]}")
        chosen = random.integers(0, draw(st.sampled_from([1, 2, 3, 16, 10_000])), count) % len(any_)
        values = any_[chosen]
        values[random.random(count) < draw(st.sampled_from([0.0, 0.5, 0.95]))] = bytes(WIDTHS[kind])
        tensors.append((kind, values.reshape(shape)))
    return with_tensors(*tensors)


@settings(deadline=None, max_examples=60)
@given(models())
def test_every_model_comes_out_byte_for_byte(content):
    assert unpacked(packed(content)) == content


def test_the_exported_network_comes_out_byte_for_byte_and_smaller_than_zipped(model):
    content = model.read_bytes()
    assert unpacked(packed(content)) == content
    assert len(packed(content)) < 0.97 * len(zlib.compress(content, 9))


def test_the_same_model_gives_the_same_file(int8_model, content):
    assert packed(int8_model.read_bytes()) == content


def test_bytes_that_no_library_would_write_come_out_too(float_model):
    """Fields in another order, unknown fields, numbers that are longer than they need be."""
    content = float_model.read_bytes()
    odd = b"\xfa\x3f\x03abc" + content[2:] + b"\x88\x00\x0a" + content[:2]
    assert onnx.load_model_from_string(odd).graph == onnx.load(float_model).graph
    assert unpacked(packed(odd)) == odd


def test_pruned_clustered_weights_in_8_bits_take_less_than_two_bits_each():
    random = np.random.default_rng(0)
    values = np.sort(random.integers(-127, 128, 16))[random.binomial(15, 0.5, (256, 256))]
    weights = np.where(random.random(values.shape) < 0.7, 0, values).astype(np.int8)
    assert len(packed(with_tensors((TensorProto.INT8, weights)))) * 8 < 2.0 * weights.size
    as_floats = with_tensors((TensorProto.FLOAT, (weights * np.float32(0.0123)).astype(np.float32)))
    assert len(packed(as_floats)) * 8 < 2.05 * weights.size


def test_what_is_no_model_is_refused():
    with pytest.raises(NotOnnx):
        packed(b"not a model")


def test_tensors_beyond_the_most_that_a_directory_holds_stay_in_the_graph(monkeypatch):
    monkeypatch.setattr(directory, "MOST_PARTS", 2)
    content = with_tensors(
        *[(TensorProto.INT8, bytes([number] * size)) for number, size in enumerate((9, 30, 5, 20))]
    )
    found = packing.packed(memoryview(content), b"")
    assert sum(found.ways.values()) == 2
    assert unpacked(found.written) == content
