"""A file of pixels is gone on with after a kill, and reading it takes no memory that stays."""

import io
import json
import logging
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from slimcv.data.cache import Decoded
from slimcv.data.folder import Keeping
from slimcv.data.pixels import Pixels
from slimcv.data.sources import Sample
from slimcv.data.stored import Stored, file_bytes, header
from slimcv.measure import memory

COUNT, FATAL, SIZE = 1000, 900, (8, 8, 3)


@dataclass
class Drawn:
    """A picture whose grey tells its number; it notes that it was read, or kills the reader."""

    number: int
    fatal: bool
    read_ones: list

    def read(self):
        if self.fatal:
            os.kill(os.getpid(), signal.SIGKILL)
        self.read_ones.append(self.number)
        file = io.BytesIO()
        Image.new("L", (2, 2), self.number % 251).save(file, "png")
        return file.getvalue()


def drawn(fatal=None):
    read_ones = []
    return read_ones, [
        Sample(Drawn(number, number == fatal, read_ones), f"[{number}]", f"[{number}]", "a", f"{number}")
        for number in range(COUNT)
    ]


def main(folder):
    """What the process does that is killed."""
    from slimcv.data import stored

    stored.SYNC_BYTES = 1
    Decoded(drawn(FATAL)[1], Keeping(Path(folder))).pixels(SIZE)


def killed(folder):
    ended = subprocess.run([sys.executable, __file__, str(folder)], check=False)
    assert ended.returncode == -signal.SIGKILL
    (progress,) = folder.glob("*.progress")
    return progress


@pytest.fixture(autouse=True)
def _everything_is_told(caplog):
    caplog.set_level(logging.INFO, logger="slimcv")


def greys(folder, samples):
    found = Decoded(samples, Keeping(folder)).pixels(SIZE)[:, 0, 0, 0]
    assert found.tolist() == [number % 251 for number in range(COUNT)]


def test_a_build_that_was_killed_goes_on_where_it_stopped(tmp_path, caplog):
    done = json.loads(killed(tmp_path).read_text())["done"]
    assert 0 < done <= FATAL
    read_ones, samples = drawn()
    greys(tmp_path, samples)
    assert sorted(read_ones) == list(range(done, COUNT))
    assert f"{done} of them were decoded before" in caplog.text
    assert [path.suffix for path in tmp_path.iterdir() if path.name != "lock"] == [".npy"]


@pytest.mark.parametrize("damage", ["progress", "partial", "both"])
def test_what_a_kill_left_is_trusted_only_if_it_is_whole(tmp_path, damage):
    progress = killed(tmp_path)
    (partial,) = tmp_path.glob("*.partial")
    if damage in ("progress", "both"):
        progress.write_text('{"done": 12')
    if damage in ("partial", "both"):
        os.truncate(partial, partial.stat().st_size - 1)
    read_ones, samples = drawn()
    greys(tmp_path, samples)
    assert sorted(read_ones) == list(range(COUNT))


def test_reading_leaves_nothing_in_memory(tmp_path):
    shape = (3000, 200, 200, 3)
    path = tmp_path / "p.npy"
    path.write_bytes(header(shape))
    os.truncate(path, file_bytes(shape))
    rows = Stored(path.open("rb"), shape, rows=np.arange(shape[0]), instead=None)
    pixels = Pixels(rows, np.arange(shape[0]), shape[1:])
    pixels[:32]
    before, most = memory.resident(), 0
    for start in range(0, shape[0], 32):
        assert not pixels[start : start + 32].any()
        if start % 256 == 0:
            most = max(most, memory.resident())
    assert pixels.nbytes == 360e6
    assert most - before < 60e6


def test_the_file_is_an_ordinary_npy_file(tmp_path):
    _, samples = drawn()
    Decoded(samples[:5], Keeping(tmp_path)).pixels(SIZE)
    (path,) = tmp_path.glob("*.npy")
    assert np.load(path)[:, 0, 0, 0].tolist() == [0, 1, 2, 3, 4]


if __name__ == "__main__":
    main(sys.argv[1])
