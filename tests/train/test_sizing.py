"""How many pictures a step takes: as many as fit, and pay."""

import math
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from slimcv import data as datasets
from slimcv.errors import SlimcvError
from slimcv.measure import memory, room
from slimcv.models import capture
from slimcv.step import Context, InputSpec, Variant
from slimcv.train import finetune, sizing
from slimcv.train.progress import Remarks
from slimcv.train.settings import FinetuneSettings
from slimcv.train.sizing import Size, Tried

INPUT = InputSpec(3, 24, 24)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    random = np.random.default_rng(0)
    for name in ("a", "b"):
        (folder / name).mkdir()
        for number in range(180):
            pixels = random.integers(0, 255, (24, 24, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{number}.png")
    return datasets.load(str(folder), cache=tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module")
def wide():
    """Takes some four megabytes a picture."""
    net = nn.Sequential(
        nn.Conv2d(3, 512, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, 2)
    )
    return capture.capture(net, INPUT)


@pytest.fixture(scope="module")
def normed():
    """Takes some eight megabytes a picture, and its BatchNorm all pictures of a step at once."""
    first = nn.Conv2d(3, 1024, 3), nn.BatchNorm2d(1024), nn.ReLU()
    net = nn.Sequential(*first, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(1024, 2))
    return capture.capture(net, INPUT)


def room_for(batch, model, data):
    """A limit that this many pictures a step keep to, and four times as many do not.

    Measured as a halving finds it: after larger steps, which leave some memory behind. What the rest of the
    process holds moves by some tens of megabytes meanwhile: few beside what `normed` takes.
    """
    trial = sizing.Trial(model, data.train, INPUT, FinetuneSettings(), "fp32")
    trial.run(4 * batch, timed=0, limited=True)
    return trial.run(batch, timed=1, limited=True).peak_bytes + 20_000_000


def choose(model, data, settings, **changes):
    given = {"precision": "fp32", "seconds_left": math.inf, "timed": False, "remarks": Remarks([])}
    given["free_bytes"] = None
    return sizing.choose(model, data.train, INPUT, settings, **{**given, **changes})


def test_auto_takes_a_measured_batch_that_leaves_some_updates_an_epoch(wide, data, caplog):
    with caplog.at_level("INFO", logger="slimcv"):
        size = choose(wide, data, FinetuneSettings(batch="auto"))
    assert size.batch in (8, 16, 32)
    assert size.seconds_each > 0
    assert f"batch: {size.batch}; measured 8 (" in caplog.text


def test_auto_keeps_to_the_memory_it_is_given(normed, data):
    tight = FinetuneSettings(batch="auto", memory=room_for(8, normed, data))
    assert choose(normed, data, tight).batch < 32


def test_a_batch_that_takes_too_much_memory_is_halved_and_its_gradients_averaged(normed, data, caplog):
    remarks = Remarks([])
    settings = FinetuneSettings(batch=128, accumulate=2, memory=room_for(8, normed, data))
    size = choose(normed, data, settings, remarks=remarks)
    # How often depends on what earlier steps of the process left behind.
    assert size.batch < 128
    assert size.batch * size.accumulate == 256
    (remark,) = remarks.lines
    assert remark.startswith("a batch of 128 does not fit into")


def free(tmp_path, megabytes):
    """What a machine that has so much free says of itself."""
    file = tmp_path / "meminfo"
    file.write_text(f"MemAvailable: {1000 * megabytes} kB\n")
    return room.free_bytes(meminfo=file, cgroups=tmp_path / "none")


def test_a_batch_for_which_no_memory_is_free_is_halved_before_it_is_tried(wide, data, tmp_path):
    memory.reset_peak()
    before, remarks = memory.peak(), Remarks([])
    # A picture takes 4 MB: two maps of 512 channels of 22 by 22, and the gradients of both.
    asked = FinetuneSettings(batch=256)
    size = choose(wide, data, asked, remarks=remarks, free_bytes=free(tmp_path, 100))
    assert size == Size(16, 16, size.seconds_each)
    assert memory.peak() - before < 100 * 1024 * 1000
    (remark,) = remarks.lines
    assert remark.startswith("a batch of 256 does not fit into memory: 16 pictures a step")
    assert choose(wide, data, asked, free_bytes=free(tmp_path, 10_000)).batch > 16


def test_auto_tries_nothing_for_which_no_memory_is_free(wide, data, tmp_path):
    size = choose(wide, data, FinetuneSettings(batch="auto"), free_bytes=free(tmp_path, 25))
    assert size.batch == 4
    with pytest.raises(SlimcvError, match="not even with 2 pictures a step") as caught:
        choose(wide, data, FinetuneSettings(batch=64), free_bytes=free(tmp_path, 6))
    assert caught.value.hint.startswith("free some")


def test_where_nothing_fits_it_is_said(wide, data):
    for batch in (32, "auto"):
        with pytest.raises(SlimcvError, match="not even with 2 pictures a step") as caught:
            choose(wide, data, FinetuneSettings(batch=batch, memory="1kB"))
        assert "memory" in caught.value.hint


def test_without_time_nothing_is_measured(wide, data):
    assert choose(wide, data, FinetuneSettings(batch="auto"), seconds_left=0.0) == Size(32, 1)
    assert choose(wide, data, FinetuneSettings(batch=64), seconds_left=-1.0) == Size(64, 1)


def test_the_next_peak_is_expected_on_a_straight_line():
    tried = [Tried(8, 1.0, 1000), Tried(16, 1.0, 1400)]
    assert sizing._expected_bytes(tried[:1], 16) == 0
    assert sizing._expected_bytes(tried, 32) == 2200


def test_growing_ends_when_two_sizes_brought_nothing():
    seconds = [1.0, 0.8, 0.79, 0.81]
    tried = [Tried(8 * 2**at, each, 0) for at, each in enumerate(seconds)]
    assert sizing._still_gaining(tried[:3])
    assert not sizing._still_gaining(tried)


def test_only_what_an_allocator_says_counts_as_memory():
    with pytest.raises(MemoryError), sizing.allocations():
        torch.empty(10**15)
    with pytest.raises(RuntimeError, match="size"), sizing.allocations():
        torch.ones(2) + torch.ones(3)


def test_the_same_rate_per_picture_is_kept_when_a_batch_is_halved():
    asked = FinetuneSettings(batch=128)
    halved = asked.model_copy(update={"batch": 32, "accumulate": 4})
    assert halved.peak_lr(60_000) == asked.peak_lr(60_000)


def test_training_itself_goes_by_what_was_measured(normed, data, tmp_path, caplog):
    student = Variant(normed, INPUT)
    where = Context(student, data, tmp_path, threads=1, train_threads=1)
    limit = room_for(8, normed, data)
    settings = FinetuneSettings(epochs=1, batch=64, distill=0, ema=0, memory=limit)
    with caplog.at_level("INFO", logger="slimcv"):
        result = finetune(student, where, settings)
    assert result.batch * result.accumulate == 64
    assert result.batch < 64
    assert "the learning rate is 1.41 times that for 32 pictures" in caplog.text
    assert result.remarks[0].startswith("a batch of 64 does not fit")


def test_training_without_a_limit_keeps_to_what_is_free(wide, data, tmp_path, monkeypatch):
    file = tmp_path / "meminfo"
    file.write_text("MemAvailable: 100000 kB\n")
    monkeypatch.setitem(room.free_bytes.__kwdefaults__, "meminfo", file)
    student = Variant(wide, INPUT)
    where = Context(student, data, tmp_path, threads=1, train_threads=1)
    result = finetune(student, where, FinetuneSettings(epochs=1, batch=64, distill=0, ema=0))
    assert (result.batch, result.accumulate) == (16, 4)
    assert result.remarks[0].startswith("a batch of 64 does not fit into memory")


LIMITED = """
import resource, sys
from pathlib import Path
import torch
from torch import nn
from slimcv import data
from slimcv.models import capture
from slimcv.step import InputSpec
from slimcv.train import sizing
from slimcv.train.progress import Remarks
from slimcv.train.settings import FinetuneSettings

torch.set_num_threads(1)
input = InputSpec(3, 24, 24)
first = nn.Conv2d(3, 512, 3), nn.BatchNorm2d(512), nn.ReLU()
net = nn.Sequential(*first, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, 2))
model = capture.capture(net, input)
train = data.load(sys.argv[1], cache=Path(sys.argv[2])).train
held = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (held + 400_000_000, resource.RLIM_INFINITY))
size = sizing.choose(
    model, train, input, FinetuneSettings(batch=256), precision="fp32", seconds_left=1e9, timed=False,
    remarks=Remarks([]), free_bytes=None,
)
print(size.batch, size.accumulate)
"""


@pytest.mark.slow
def test_a_batch_for_which_the_system_has_no_memory_is_halved(data, tmp_path):
    folder = str(data.train.paths[0]).rsplit("/", 2)[0]
    command = [sys.executable, "-c", LIMITED, folder, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    batch, accumulate = map(int, done.stdout.split())
    assert batch < 256
    assert batch * accumulate == 256
    assert "a batch of 256 does not fit into memory" in done.stderr


def test_a_batch_with_large_maps_is_divided_where_no_norm_needs_it_whole(data):
    layers = nn.Conv2d(3, 2048, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2048, 2)
    plain = capture.capture(nn.Sequential(*layers), INPUT)
    normed = capture.capture(nn.Sequential(layers[0], nn.BatchNorm2d(2048), *layers[1:]), INPUT)
    divided = choose(plain, data, FinetuneSettings(batch=32, lr=0.1))
    assert divided.batch * divided.accumulate == 32
    # A picture's maps: 2048 channels of 22 by 22, before and after the ReLU, four bytes each.
    assert divided.batch * 2 * 2048 * 22 * 22 * 4 <= sizing.MAPS_BYTES
    assert choose(normed, data, FinetuneSettings(batch=32, lr=0.1)).batch == 32
