"""Entropy coders give back what they were given, and nothing larger than was declared."""

import lzma
import tracemalloc

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from slimcv.packed import coders
from slimcv.packed.damage import Damaged

CONTENT = b"depthwise pointwise " * 50


def lzma_of(content):
    return lzma.compress(content, lzma.FORMAT_RAW, filters=[coders._ENCODER])


def each(content):
    return {
        coders.STORED: content,
        coders.ZSTANDARD: coders.zstandard_of(content, level=19),
        coders.LZMA: lzma_of(content),
    }


@settings(deadline=None, max_examples=40)
@given(st.binary(min_size=1, max_size=500) | st.binary(min_size=1, max_size=8).map(lambda part: part * 90))
def test_what_is_coded_comes_out_again(content):
    for coder, packed in each(content).items():
        assert coders.decoded(coder, packed, len(content)) == content
    coder, packed = coders.smallest(content)
    assert len(packed) <= len(content)
    assert coders.decoded(coder, packed, len(content)) == content


def test_a_large_block_keeps_to_the_window_that_readers_accept():
    content = bytes(range(256)) * (36 << 12)
    packed = coders.zstandard_of(content, level=1)
    assert zstandard.get_frame_parameters(zstandard.FRAME_HEADER + packed).window_size <= 8 << 20
    assert coders.decoded(coders.ZSTANDARD, packed, len(content)) == content


@pytest.mark.parametrize("coder", [coders.STORED, coders.ZSTANDARD, coders.LZMA])
@pytest.mark.parametrize("size", [0, len(CONTENT) - 1, len(CONTENT) + 1])
def test_another_size_than_declared_is_refused(coder, size):
    with pytest.raises(Damaged):
        coders.decoded(coder, each(CONTENT)[coder], size)


@pytest.mark.parametrize("coder", [coders.ZSTANDARD, coders.LZMA])
@pytest.mark.parametrize(
    "change", [lambda packed: packed[:-3], lambda packed: packed + b"more", lambda _: b""]
)
def test_a_block_that_is_cut_or_goes_on_is_refused(coder, change):
    with pytest.raises(Damaged):
        coders.decoded(coder, change(each(CONTENT)[coder]), len(CONTENT))


def test_an_unknown_coder_is_refused():
    with pytest.raises(Damaged, match="no coder has the number 9"):
        coders.decoded(9, b"", 0)


@pytest.mark.parametrize("coder", [coders.ZSTANDARD, coders.LZMA])
def test_a_bomb_takes_no_more_memory_than_was_declared(coder):
    content = bytes(20 << 20)
    bomb = lzma_of(content) if coder == coders.LZMA else coders.zstandard_of(content, level=1)
    tracemalloc.start()
    try:
        with pytest.raises(Damaged):
            coders.decoded(coder, bomb, 1000)
        assert tracemalloc.get_traced_memory()[1] < 2 << 20  # LZMA keeps a dictionary of 1 MiB.
    finally:
        tracemalloc.stop()


def test_a_frame_that_hides_its_size_is_refused():
    frame = zstandard.ZstdCompressor(write_content_size=False).compressobj()
    packed = (frame.compress(CONTENT) + frame.flush())[4:]
    with pytest.raises(Damaged):
        coders.decoded(coders.ZSTANDARD, packed, len(CONTENT))
