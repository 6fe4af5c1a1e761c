"""Numbers of any width, packed and unpacked."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slimcv.packed import bits
from slimcv.packed.damage import Damaged
from slimcv.packed.varints import Numbers, varint


@settings(deadline=None)
@given(st.integers(1, 32), st.integers(0, 300), st.integers(0, 2**32 - 1))
def test_what_is_packed_comes_out_again(width, count, seed):
    values = np.random.default_rng(seed).integers(0, 1 << width, count, np.uint64).astype(np.uint32)
    stream = bits.packed(values, width)
    assert len(stream) == bits.size(width, count)
    assert (bits.unpacked(memoryview(stream), width, count, np.dtype("<u4")) == values).all()


def test_the_lowest_bit_comes_first():
    assert bits.packed(np.array([1, 2, 3, 0, 1], np.uint8), 2) == bytes([0b00_11_10_01, 0b01])


def test_more_than_one_piece_at_a_time():
    values = np.arange(200_000, dtype=np.uint32) % 8
    assert (bits.unpacked(memoryview(bits.packed(values, 3)), 3, 200_000, np.dtype(np.uint8)) == values).all()


@given(st.lists(st.integers(0, 2**64 - 1)))
def test_varints_come_out_again(values):
    numbers = Numbers(b"".join(map(varint, values)))
    assert [numbers.next() for _ in values] == values
    assert numbers.left == 0


@pytest.mark.parametrize("content", [b"", b"\x80", b"\xff" * 11])
def test_a_varint_without_end_is_refused(content):
    with pytest.raises(Damaged):
        Numbers(content).next()
