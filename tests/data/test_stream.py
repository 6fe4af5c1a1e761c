"""Pictures that are not kept are decoded when asked for, ahead where announced, and nothing gets lost."""

import logging
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from slimcv.data.batches import gathered
from slimcv.data.decoding import decode
from slimcv.data.pixels import Pixels
from slimcv.data.sources import find
from slimcv.data.stream import AHEAD_BYTES, Stream
from slimcv.errors import SlimcvError

SIZE = (6, 7, 3)


@pytest.fixture
def samples(tmp_path):
    random = np.random.default_rng(0)
    for name in (f"{label}/{index:02}" for label in "ab" for index in range(20)):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.fromarray(random.integers(0, 256, (9, 9, 3), dtype=np.uint8)).save(tmp_path / f"{name}.png")
    return find(str(tmp_path)).train


@pytest.fixture
def wanted(samples):
    return np.stack([decode(sample.picture, *SIZE) for sample in samples])


def streamed(samples, size=SIZE):
    return Pixels(Stream(samples, size), np.arange(len(samples)), size)


@pytest.mark.parametrize(
    "index",
    [
        3,
        -1,
        slice(4, 9),
        slice(None, None, 7),
        [5, 0, 5],
        np.array([39, 1]),
        np.array([[0, 1, 2], [5, 6, 7]]),
        np.arange(40) % 3 == 0,
        (slice(2, 5), 1),
        (slice(None), 0, 0, 0),
        (2, slice(None), 0),
        (np.array([1, 2]), ..., 1),
        np.array([], dtype=np.int64),
    ],
    ids=str,
)
def test_it_is_indexed_like_an_array(samples, wanted, index):
    assert np.array_equal(streamed(samples)[index], wanted[index])


def test_the_whole_is_read_only_when_it_is_asked_for(samples, wanted):
    pixels = streamed(samples)
    assert pixels[:] is pixels
    assert (len(pixels), pixels.shape, pixels.dtype) == (40, (40, *SIZE), np.uint8)
    assert np.array_equal(np.asarray(pixels), wanted)
    assert np.array_equal(np.array(pixels, dtype=np.float32), wanted)


@pytest.mark.parametrize("index", [40, [1, 40], 1.5, (0, 6), (0, 0, 0, 0, 0)])
def test_what_an_array_refuses_is_refused(samples, index):
    with pytest.raises((IndexError, ValueError)):
        streamed(samples)[index]


def test_pictures_read_are_the_callers_own(samples, wanted):
    pixels = streamed(samples)
    pixels[3:5][:] = 0
    assert np.array_equal(pixels[3:5], wanted[3:5])


def test_batches_announced_ahead_are_the_same(samples, wanted):
    parts = np.array_split(np.random.default_rng(1).permutation(40), 6)
    found = list(gathered(streamed(samples), parts))
    assert len(found) == 6
    for part, (index, pictures) in zip(parts, found, strict=True):
        assert np.array_equal(index, part)
        assert np.array_equal(pictures.numpy(), wanted[part])


def test_announced_batches_never_fetched_give_way(samples, wanted):
    size = (600, 700, 3)
    pixels = streamed(samples, size)
    for start in range(0, 40, 4):
        pixels.expect(np.arange(start, start + 4))
    pixels.expect(np.tile(np.arange(40), 1 + AHEAD_BYTES // (40 * 600 * 700 * 3)))
    assert sum(batch.pixels.nbytes for batch in pixels._rows._ahead.values()) <= AHEAD_BYTES
    assert np.array_equal(pixels[:2], [decode(sample.picture, *size) for sample in samples[:2]])


def test_another_of_its_class_stands_in_for_a_picture_that_vanishes_and_that_is_told_once(
    samples, wanted, caplog
):
    pixels = streamed(samples)
    pixels.expect(np.arange(40))
    assert np.array_equal(pixels[np.arange(40)], wanted)
    for lost in (19, 0, 1):
        Path(samples[lost].path).unlink()
    with caplog.at_level(logging.WARNING, logger="slimcv"):
        found = pixels[[0, 19, 1, 5]]
        again = pixels[[0, 19, 1, 5]]
    assert np.array_equal(found, wanted[[2, 2, 2, 5]])
    assert np.array_equal(again, found)
    assert [record.getMessage().split(" ")[0] for record in caplog.records] == [
        samples[lost].path for lost in (0, 19, 1)
    ]


def test_a_batch_announced_before_a_loss_was_known_is_mended_too(samples, wanted):
    pixels = streamed(samples)
    Path(samples[0].path).unlink()
    pixels.expect(np.array([0, 3]))
    pixels.expect(np.array([4, 0]))
    assert np.array_equal(pixels[np.array([0, 3])], wanted[[1, 3]])
    assert np.array_equal(pixels[np.array([4, 0])], wanted[[4, 1]])


def test_too_many_losses_are_an_error_that_names_the_first_and_the_way_on(samples):
    for sample in samples[10:20]:
        Path(sample.path).unlink()
    with pytest.raises(SlimcvError, match="10 of 40 pictures cannot be read any more") as caught:
        streamed(samples)[np.arange(5, 30)]
    assert samples[10].path in caught.value.message
    assert "same command" in caught.value.hint


def test_the_last_picture_of_a_class_has_no_stand_in(samples):
    Path(samples[0].path).unlink()
    with pytest.raises(SlimcvError, match="no picture of a can be read any more"):
        streamed((samples[0], *samples[20:]))[0]
