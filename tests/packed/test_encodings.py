"""Every way of writing a tensor gives its very bits back; a description that lies is refused."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slimcv.packed import choosing, decoding, directory, encodings
from slimcv.packed.damage import Damaged
from slimcv.packed.encodings import Way, unsigned
from slimcv.packed.varints import Numbers, varint


def listed(encoded):
    """The description of one tensor as it stands in a directory; its streams are blocks 2, 3, 4 …"""
    streams = list(encoded.every_stream())
    whole = directory.written([], [(0, 0, 0, encoded)], range(2, 2 + len(streams)))
    return whole[len(varint(0)) + len(varint(1)) + 3 * len(varint(0)) :], [each.content for each in streams]


def again(encoded, count, width):
    description, streams = listed(encoded)
    found = decoding.described(Numbers(description), count=count, width=width)
    assert [size for _, size in found.every_stream()] == [len(stream) for stream in streams]
    return decoding.elements(found, lambda block, size: memoryview(streams[block - 2])[:size])


@st.composite
def tensors(draw):
    """Elements of each width: any, few different ones, mostly zeros, in a narrow range, and their rows."""
    width = draw(st.sampled_from([1, 2, 4, 8]))
    rows, columns = draw(st.integers(1, 5)), draw(st.integers(1, 40))
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    count = rows * columns
    kind = draw(st.sampled_from(["any", "few", "sparse", "very sparse", "narrow", "constant"]))
    any_ = np.frombuffer(random.bytes(count * width), unsigned(width))
    few = any_[random.integers(0, draw(st.integers(1, 6)), count) % count]
    values = {
        "any": any_,
        "few": few,
        "sparse": np.where(random.random(count) < 0.3, few, 0),
        "very sparse": np.where(random.random(count) < 0.02, any_, 0),
        "narrow": random.integers(-3, 9, count).astype(f"<i{width}").view(unsigned(width)),
        "constant": np.full(count, any_[0]),
    }[kind]
    return values.astype(unsigned(width)), rows


@settings(deadline=None, max_examples=120)
@given(tensors())
def test_every_way_gives_the_bits_back(drawn):
    elements, rows = drawn
    ways = [encodings.constant(elements)] if (elements == elements[0]).all() else []
    for encoded in [*choosing._ways(elements, rows), *ways, choosing.best(elements, rows=rows)]:
        found = again(encoded, len(elements), elements.dtype.itemsize)
        assert found.dtype == elements.dtype
        assert found.tobytes() == elements.tobytes(), encoded.ways()


SPECIAL = [0.0, -0.0, 1e-45, -1e-310, np.inf, -np.inf, np.nan, -np.nan]


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_payloads_of_nan_negative_zeros_and_denormals_stay(dtype):
    floats = np.array(SPECIAL * 20, dtype)
    elements = floats.view(unsigned(floats.itemsize)).copy()
    elements[6::8] |= 5  # A payload in the fraction of a NaN.
    for encoded in choosing._ways(elements, 4):
        assert again(encoded, len(elements), floats.itemsize).tobytes() == elements.tobytes()


def test_positions_of_far_values_take_escapes():
    elements = np.zeros(2000, np.uint8)
    elements[[0, 255, 511, 1999]] = 7
    encoded = encodings.gaps(elements, encodings.raw(elements[elements != 0]))
    assert (again(encoded, 2000, 1) == elements).all()


def test_the_best_way_is_the_one_that_suits_the_content():
    random = np.random.default_rng(0)
    weights = random.normal(size=20_000).astype(np.float32)

    def best(values):
        return choosing.best(np.ascontiguousarray(values).view(unsigned(values.itemsize))).ways()

    assert best(np.full(20_000, 7.0)) == "constant"
    assert best(weights) in ("planes", "rotated")
    assert best(np.where(random.random(20_000) < 0.2, weights, 0)).startswith(("masked", "gaps"))
    assert best(np.where(random.random(20_000) < 0.01, weights, 0)).startswith("gaps")
    assert best(np.round(weights).astype(np.float32)).startswith("codebook")
    assert best(random.integers(-8, 8, 20_000).astype(np.int8)) == "narrow"


def test_clustered_weights_take_about_the_bits_of_their_indices():
    random = np.random.default_rng(0)
    clustered = random.normal(size=16).astype(np.float32)[random.integers(0, 16, 40_000)]
    best = choosing.best(clustered.view(np.uint32), rows=40)
    assert choosing.estimated_bytes(best) < 1.02 * 40_000 / 2 + 100


def test_a_codebook_a_row_is_found():
    random = np.random.default_rng(0)
    books = random.normal(size=(32, 4)).astype(np.float32)
    rows = np.take_along_axis(books, random.integers(0, 4, (32, 500)), axis=1)
    best = choosing.best(rows.view(np.uint32).ravel(), rows=32)
    assert best.way is Way.ROW_CODEBOOKS
    assert choosing.estimated_bytes(best) < 1.02 * 32 * 500 / 4 + 700
    columns = np.ascontiguousarray(rows.T)
    best = choosing.best(columns.view(np.uint32).ravel(), rows=500)
    assert (best.way, best.child.way) == (Way.TRANSPOSED, Way.ROW_CODEBOOKS)


LIES = {
    "unknown way": [77],
    "codebook of none": [Way.CODEBOOK, 0, 2, Way.RAW, 3],
    "codebook larger than the tensor": [Way.CODEBOOK, 101, 2, Way.RAW, 3],
    "rows that do not divide": [Way.ROW_CODEBOOKS, 3, 50, 2, 3, Way.RAW, 4],
    "more entries than elements": [Way.ROW_CODEBOOKS, 4, 101, 2, 3, Way.RAW, 4],
    "no bits": [Way.NARROW, 0, 0, 2],
    "too many bits": [Way.NARROW, 33, 0, 2],
    "a base beyond the type": [Way.NARROW, 4, 1 << 32, 2],
    "more values than elements": [Way.MASKED, 101, 2, Way.RAW, 3],
    "positions without values": [Way.GAPS, 5, 4, 2, Way.RAW, 3],
    "more escapes than zeros": [Way.GAPS, 5, 6, 2, Way.RAW, 3],
    "no rows": [Way.TRANSPOSED, 0, Way.RAW, 2],
    "a tower": [Way.TRANSPOSED, 1] * 5 + [Way.RAW, 2],
    "an end": [Way.CODEBOOK, 4],
}


@pytest.mark.parametrize("lie", LIES)
def test_a_description_that_cannot_be_is_refused_before_anything_is_decoded(lie):
    content = b"".join(varint(int(number)) for number in LIES[lie])
    with pytest.raises(Damaged):
        decoding.described(Numbers(content), count=100, width=4)


def lying(numbers, streams, count=8, width=1):
    described = decoding.described(
        Numbers(b"".join(varint(int(number)) for number in numbers)), count=count, width=width
    )
    return decoding.elements(described, lambda block, size: memoryview(streams[block])[:size])


@pytest.mark.parametrize(
    ("numbers", "streams"),
    [
        ([Way.CODEBOOK, 2, 0, Way.RAW, 1], [b"ab", bytes([0, 1, 2, 0, 0, 0, 0, 0])]),
        ([Way.ROW_CODEBOOKS, 2, 3, 0, 1, Way.RAW, 2], [b"\0\1", b"abc", bytes([0, 1, 0, 0, 0, 0, 0, 0])]),
        ([Way.ROW_CODEBOOKS, 2, 3, 0, 1, Way.RAW, 2], [b"\5\1", b"abc", bytes(8)]),
        ([Way.MASKED, 2, 0, Way.RAW, 1], [b"\xff", b"ab"]),
        ([Way.GAPS, 2, 2, 0, Way.RAW, 1], [b"\4\4", b"ab"]),
        ([Way.GAPS, 1, 1, 0, Way.RAW, 1], [b"\xff", b"a"]),
    ],
    ids=["index", "index in a row", "sizes of books", "mask", "positions", "only escapes"],
)
def test_streams_that_leave_their_tensor_are_refused(numbers, streams):
    with pytest.raises(Damaged):
        lying(numbers, streams)
