"""Decoded once, kept, and made anew whenever anything it was made from or it itself is not what it was."""

import errno
import logging
import os
import resource
import signal
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from slimcv.data.cache import Decoded
from slimcv.data.decoding import decode
from slimcv.data.folder import LIMIT_BYTES, Keeping, default_folder
from slimcv.data.keeping import make
from slimcv.data.sources import find
from slimcv.errors import SlimcvError

NAMES = [f"{label}/{index}" for label in "ab" for index in range(6)]


@pytest.fixture
def samples(tmp_path):
    random = np.random.default_rng(0)
    for name in NAMES:
        (tmp_path / f"data/{name}").parent.mkdir(parents=True, exist_ok=True)
        pixels = random.integers(0, 256, (20, 24, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"data/{name}.png")
    return find(str(tmp_path / "data")).train


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "c"


@pytest.fixture(autouse=True)
def _everything_is_told(caplog):
    caplog.set_level(logging.INFO, logger="slimcv")


def pixels(samples, folder, size=(8, 8, 3), limit=LIMIT_BYTES):
    return np.asarray(Decoded(samples, Keeping(folder, limit)).pixels(size))


def expected(samples, size=(8, 8, 3)):
    return np.stack([decode(sample.picture, *size) for sample in samples])


def files(folder, suffix=".npy"):
    return sorted(path for path in folder.iterdir() if path.suffix == suffix)


@contextmanager
def files_no_larger_than(size):
    """A limit on the size of files stands for a full disk: writing fails in the same place."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)


@pytest.mark.parametrize("size", [(8, 10, 3), (8, 8, 1)])
def test_pixels_are_those_of_the_decoder(samples, folder, size):
    assert np.array_equal(pixels(samples, folder, size), expected(samples, size))


def test_the_second_call_decodes_nothing(samples, folder, caplog):
    first = pixels(samples, folder)
    assert "decoding 12 pictures to 8x8" in caplog.text
    caplog.clear()
    assert np.array_equal(pixels(samples, folder), first)
    assert caplog.text == ""


def test_every_size_and_every_list_has_its_own_file(samples, folder):
    for size in ((8, 8, 3), (8, 9, 3), (8, 8, 1)):
        for some in (samples, samples[1:]):
            assert pixels(some, folder, size).shape == (len(some), *size)
    assert len(files(folder)) == 6


@pytest.mark.parametrize("damage", ["cut", "longer", "garbage", "empty", "other shape"])
def test_a_damaged_file_is_made_anew_and_that_is_told(samples, folder, damage, caplog):
    first = pixels(samples, folder)
    (path,) = files(folder)
    whole = path.read_bytes()
    if damage == "other shape":
        np.save(path, np.zeros((2, 8, 8, 3), dtype=np.uint8))
    else:
        damaged = {"cut": whole[:-100], "longer": whole + b"x", "garbage": b"garbage" * 99, "empty": b""}
        path.write_bytes(damaged[damage])
    assert np.array_equal(pixels(samples, folder), first)
    assert caplog.text.count(f"{path} is damaged") == 1
    assert path.read_bytes() == whole


def test_a_file_cut_short_while_it_is_in_use_costs_nothing_but_decoding(samples, folder, caplog):
    found = Decoded(samples, Keeping(folder)).pixels((8, 8, 3))
    os.truncate(files(folder)[0], 200)
    assert np.array_equal(found[3:7], expected(samples[3:7]))
    assert "changed while it was read" in caplog.text


def test_the_cache_of_another_version_is_told_and_not_used(samples, folder, caplog):
    pixels(samples, folder)
    (path,) = files(folder)
    older = path.rename(path.with_name(path.name.replace("-v2-", "-v1-")))
    older.write_bytes(b"older")
    assert np.array_equal(pixels(samples, folder), expected(samples))
    assert f"{older.name} is of another version" in caplog.text


def test_a_changed_picture_is_decoded_again(samples, folder, tmp_path):
    pixels(samples, folder)
    Image.new("RGB", (20, 24), "white").save(samples[0].path)
    changed = find(str(tmp_path / "data")).train
    assert (pixels(changed, folder)[0] == 255).all()


def test_a_picture_written_anew_is_told_by_its_time_alone(samples, folder, tmp_path):
    pixels(samples, folder)
    before, status = files(folder), Path(samples[0].path).stat()
    os.utime(samples[0].path, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    changed = find(str(tmp_path / "data")).train
    assert np.array_equal(pixels(changed, folder), expected(samples))
    assert len(files(folder)) == len(before) + 1


def test_two_at_once_decode_once(samples, folder, caplog):
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: pixels(samples, folder), range(4)))
    assert all(np.array_equal(one, found[0]) for one in found)
    assert caplog.text.count("decoding 12 pictures") == 1


@pytest.fixture
def _no_locks(monkeypatch):
    """A file system that has none, as some of networks."""

    def refuse(*_):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr("fcntl.flock", refuse)


@pytest.mark.usefixtures("_no_locks")
def test_without_locks_two_at_once_leave_each_others_pixels_alone(samples, folder):
    def meanwhile(_):
        """The other one begins when the first has decoded all, and ends before it takes its place."""
        with make(Keeping(folder), "key", samples, (8, 8, 3), lasting=lambda _: True).file as other:
            assert other.read().endswith(expected(samples).tobytes())
        return True

    with make(Keeping(folder), "key", samples, (8, 8, 3), lasting=meanwhile).file:
        assert np.array_equal(np.load(files(folder)[0]), expected(samples))
    assert files(folder, ".partial") == files(folder, ".progress") == []


@pytest.mark.usefixtures("_no_locks")
def test_without_locks_nothing_is_left_of_a_decoding_that_was_broken_off(samples, folder):
    def stop(_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make(Keeping(folder), "key", samples, (8, 8, 3), lasting=stop)
    assert [path.name for path in folder.iterdir()] == ["lock"]


def test_checking_at_a_size_leaves_nothing_to_decode_at_it(samples, folder, caplog):
    Path(samples[2].path).write_bytes(b"no picture")
    decoded = Decoded(samples, Keeping(folder))
    assert list(decoded.faults((8, 8, 3))) == [2]
    caplog.clear()
    rows = np.array([5, 0, 3])
    some = [samples[row] for row in rows]
    part = Decoded(some, Keeping(folder), whole=(decoded, rows))
    assert np.array_equal(np.asarray(part.pixels((8, 8, 3))), expected(some))
    assert caplog.text == ""
    assert part.pixels((4, 4, 3)).shape == (3, 4, 4, 3)
    assert "decoding 3 pictures to 4x4" in caplog.text


@pytest.mark.parametrize("size", [None, (8, 8, 3)])
def test_broken_pictures_are_found_once_and_remembered(samples, folder, size, caplog):
    os.truncate(samples[1].path, 60)
    found = Decoded(samples, Keeping(folder)).faults(size)
    assert list(found) == [1]
    caplog.clear()
    assert Decoded(samples, Keeping(folder)).faults(size) == found
    assert caplog.text == ""


@pytest.mark.parametrize("size", [None, (8, 8, 3)])
def test_a_picture_that_is_gone_is_left_out_but_not_for_ever(samples, folder, size):
    away = Path(samples[1].path).rename(folder.parent / "away.png")
    found = Decoded(samples, Keeping(folder)).faults(size)
    assert found == {1: "no such file or directory"}
    assert files(folder) == files(folder, ".json") == []
    away.rename(samples[1].path)
    assert Decoded(samples, Keeping(folder)).faults(size) == {}


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "3", '{"count": 3, "broken": {}}', '{"count": 12, "broken": []}']
)
def test_a_damaged_memory_of_broken_pictures_is_made_anew(samples, folder, text):
    assert Decoded(samples, Keeping(folder)).faults(None) == {}
    (path,) = files(folder, ".json")
    path.write_text(text)
    assert Decoded(samples, Keeping(folder)).faults(None) == {}
    assert path.read_text().startswith('{"count": 12')


@pytest.mark.parametrize("damage", ["deleted", "cut"])
def test_another_of_its_class_stands_in_for_a_picture_lost_since_the_check(samples, folder, damage, caplog):
    wanted = expected(samples)
    decoded = Decoded(samples, Keeping(folder))
    assert decoded.faults(None) == {}
    lost = Path(samples[11].path)
    lost.unlink() if damage == "deleted" else os.truncate(lost, 60)
    found = np.asarray(decoded.pixels((8, 8, 3)))
    assert np.array_equal(found[11], wanted[6])
    assert np.array_equal(found[:11], wanted[:11])
    assert f"{lost} cannot be read any more" in caplog.text
    assert f"{samples[6].path} of the same class stands in" in caplog.text
    assert files(folder) == []
    caplog.clear()
    assert np.array_equal(decoded.pixels((8, 8, 3))[:], found)
    assert caplog.text == ""


def test_pictures_that_are_all_gone_are_an_error_that_tells_how_to_go_on(samples, folder):
    for sample in samples[4:]:
        Path(sample.path).unlink()
    with pytest.raises(SlimcvError, match="8 of 12 pictures cannot be read any more") as caught:
        pixels(samples, folder)
    assert samples[4].path in caught.value.message
    assert "same command" in caught.value.hint


def test_a_cache_that_cannot_be_made_is_an_error_with_the_way_out(samples, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(SlimcvError, match="cannot write") as caught:
        pixels(samples, tmp_path / "file/c")
    assert "--cache DIR" in caught.value.hint
    assert "--no-cache" in caught.value.hint


def test_a_full_disk_is_told_and_the_pictures_are_streamed(samples, folder, caplog):
    with files_no_larger_than(1000):
        found = pixels(samples, folder)
    assert np.array_equal(found, expected(samples))
    assert os.strerror(errno.EFBIG).lower() in caplog.text
    assert "decoded anew whenever they are needed" in caplog.text
    assert files(folder) == files(folder, ".partial") == files(folder, ".progress") == []


@pytest.mark.parametrize("size", [None, (8, 8, 3)])
def test_a_disk_too_full_for_a_note_of_broken_pictures_does_not_end_the_check(samples, folder, size):
    os.truncate(samples[1].path, 60)
    with files_no_larger_than(10):
        assert list(Decoded(samples, Keeping(folder)).faults(size)) == [1]
    assert [path.name for path in folder.iterdir()] == ["lock"]


def test_what_is_larger_than_the_limit_is_streamed_and_that_is_told_once(samples, folder, caplog):
    decoded = Decoded(samples, Keeping(folder, limit_bytes=2000))
    for _ in range(2):
        assert np.array_equal(np.asarray(decoded.pixels((8, 8, 3))), expected(samples))
    assert caplog.text.count("decoded anew whenever they are needed") == 1
    assert files(folder) == []


def test_what_was_longest_unused_makes_room(samples, folder, caplog):
    sizes = [(8, 8, 3), (8, 9, 3), (8, 10, 3)]
    for age, size in enumerate(sizes):
        pixels(samples, folder, size)
        newest = max(files(folder), key=lambda path: path.stat().st_ctime_ns)
        os.utime(newest, (1000 + age, 1000 + age))
    oldest, middle, _ = sorted(files(folder), key=lambda path: path.stat().st_mtime)
    pixels(samples, folder, sizes[0])
    kept = sum(path.stat().st_size for path in files(folder))
    pixels(samples, folder, (4, 4, 3), limit=kept + 100)
    assert not middle.exists()
    assert oldest.exists()
    assert f"{middle.name} was longest unused" in caplog.text
    assert sum(path.stat().st_size for path in files(folder)) <= kept + 100


def test_what_is_in_use_is_never_evicted_even_to_no_avail(samples, folder):
    kept = Decoded(samples, Keeping(folder)).pixels((8, 8, 3))
    pixels(samples, folder, (4, 4, 3))
    before = files(folder)
    found = pixels(samples, folder, (9, 9, 3), limit=5000)
    assert np.array_equal(found, expected(samples, (9, 9, 3)))
    assert files(folder) == before
    assert np.array_equal(kept[:], expected(samples))


def test_without_a_folder_nothing_is_left_and_nothing_decoded_twice(samples, tmp_path, monkeypatch, caplog):
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    decoded = Decoded(samples, Keeping(None))
    assert decoded.faults(None) == {}
    for _ in range(2):
        assert np.array_equal(np.asarray(decoded.pixels((8, 8, 3))), expected(samples))
    assert caplog.text.count("decoding 12 pictures") == 1
    assert list(temporary.iterdir()) == []


def test_the_cache_is_the_users_own_unless_told_otherwise(monkeypatch, tmp_path):
    assert default_folder() == tmp_path / "cache/slimcv"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert default_folder() == tmp_path / ".cache/slimcv"
