"""Decoded once, kept, and made anew whenever anything it was made from or it itself is not what it was."""

import errno
import logging
import os
import resource
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from slimcv.data import cache
from slimcv.data.decoding import PictureError, decode
from slimcv.data.sources import find
from slimcv.errors import SlimcvError


@pytest.fixture
def samples(tmp_path):
    random = np.random.default_rng(0)
    for name in ("a/1", "a/2", "b/1", "b/2"):
        (tmp_path / f"data/{name}").parent.mkdir(parents=True, exist_ok=True)
        pixels = random.integers(0, 256, (20, 24, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"data/{name}.png")
    return find(str(tmp_path / "data")).train


def files(folder):
    return sorted(path for path in folder.iterdir() if path.name != "lock")


def test_pixels_are_those_of_the_decoder_and_are_mapped(samples, tmp_path):
    found = cache.pixels(samples, 8, 10, 3, folder=tmp_path / "c")
    assert isinstance(found, np.memmap)
    assert found.dtype == np.uint8
    assert np.array_equal(found, np.stack([decode(sample.picture, 8, 10, 3) for sample in samples]))


def test_the_second_call_decodes_nothing(samples, tmp_path, caplog):
    caplog.set_level(logging.INFO, logger="slimcv")
    cache.pixels(samples, 8, 8, 3, folder=tmp_path / "c")
    assert "decoding 4 pictures to 8x8" in caplog.text
    caplog.clear()
    cache.pixels(samples, 8, 8, 3, folder=tmp_path / "c")
    assert caplog.text == ""


def test_every_size_and_every_list_has_its_own_file(samples, tmp_path):
    for size in ((8, 8, 3), (8, 9, 3), (8, 8, 1)):
        for some in (samples, samples[1:]):
            assert cache.pixels(some, *size, folder=tmp_path / "c").shape == (len(some), *size)
    assert len(files(tmp_path / "c")) == 6


@pytest.mark.parametrize("damage", ["cut", "garbage", "empty", "other shape"])
def test_a_damaged_file_is_made_anew(samples, tmp_path, damage):
    expected = np.array(cache.pixels(samples, 8, 8, 3, folder=tmp_path / "c"))
    (path,) = files(tmp_path / "c")
    whole = path.read_bytes()
    if damage == "other shape":
        np.save(path, np.zeros((2, 8, 8, 3), dtype=np.uint8))
    else:
        path.write_bytes({"cut": whole[:-100], "garbage": b"garbage" * 99, "empty": b""}[damage])
    assert np.array_equal(cache.pixels(samples, 8, 8, 3, folder=tmp_path / "c"), expected)


def test_a_changed_picture_is_decoded_again(samples, tmp_path):
    cache.pixels(samples, 8, 8, 3, folder=tmp_path / "c")
    Image.new("RGB", (20, 24), "white").save(samples[0].path)
    changed = find(str(tmp_path / "data")).train
    assert (cache.pixels(changed, 8, 8, 3, folder=tmp_path / "c")[0] == 255).all()


def test_what_a_killed_process_left_is_cleared_away(samples, tmp_path):
    cache.pixels(samples, 8, 8, 3, folder=tmp_path / "c")
    (path,) = files(tmp_path / "c")
    path.rename(path.with_name(f"{path.name}.1234.partial"))
    cache.pixels(samples, 8, 8, 3, folder=tmp_path / "c")
    assert files(tmp_path / "c") == [path]


def test_two_at_once_decode_once(samples, tmp_path, caplog):
    caplog.set_level(logging.INFO, logger="slimcv")
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: cache.pixels(samples, 8, 8, 3, folder=tmp_path / "c"), range(4)))
    assert all(np.array_equal(one, found[0]) for one in found)
    assert caplog.text.count("decoding 4 pictures") == 1


def test_a_picture_that_broke_after_the_check_is_named(samples, tmp_path):
    Path(samples[2].path).write_bytes(b"gone bad")
    with pytest.raises(PictureError, match="readable before") as caught:
        cache.pixels(samples, 8, 8, 3, folder=tmp_path / "c")
    assert samples[2].path in caught.value.message
    assert files(tmp_path / "c") == []


def test_broken_pictures_are_found_once_and_remembered(samples, tmp_path, caplog):
    caplog.set_level(logging.INFO, logger="slimcv")
    os.truncate(samples[1].path, 60)
    found = cache.broken(samples, tmp_path / "c")
    assert list(found) == [1]
    caplog.clear()
    assert cache.broken(samples, tmp_path / "c") == found
    assert caplog.text == ""


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "3", '{"count": 3, "broken": {}}', '{"count": 4, "broken": []}']
)
def test_a_damaged_memory_of_broken_pictures_is_made_anew(samples, tmp_path, text):
    assert cache.broken(samples, tmp_path / "c") == {}
    (path,) = files(tmp_path / "c")
    path.write_text(text)
    assert cache.broken(samples, tmp_path / "c") == {}
    assert path.read_text().startswith('{"count": 4')


def test_a_cache_that_cannot_be_made_is_an_error_with_the_way_out(samples, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(SlimcvError, match="cannot write") as caught:
        cache.pixels(samples, 8, 8, 3, folder=tmp_path / "file/c")
    assert "--cache" in caught.value.hint


def test_a_full_disk_is_an_error_and_leaves_nothing_half_written(samples, tmp_path):
    """A limit on the size of files stands for the full disk: writing fails in the same place."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(SlimcvError, match=os.strerror(errno.EFBIG)) as caught:
            cache.pixels(samples, 64, 64, 3, folder=tmp_path / "c")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)
    assert "--cache" in caught.value.hint
    assert files(tmp_path / "c") == []


def test_the_cache_is_the_users_own_unless_told_otherwise(monkeypatch, tmp_path):
    assert cache.default_folder() == tmp_path / "cache/slimcv"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache.default_folder() == tmp_path / ".cache/slimcv"
