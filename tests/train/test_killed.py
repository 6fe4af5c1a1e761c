"""A process that is killed while it trains: the next one ends with the weights of an unbroken training."""

import json
import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from slimcv import data as datasets
from slimcv.models import capture
from slimcv.step import Context, InputSpec, Variant
from slimcv.train import finetune
from slimcv.train.settings import FinetuneSettings

INPUT = InputSpec(3, 12, 12)
SETTINGS = FinetuneSettings(
    epochs=60, batch=8, lr=0.01, accumulate=3, ema=0.9, schedule="plateau", checkpoint_every=1e-6, colour=0.1,
    teacher="cached", precision="fp32",
)  # fmt: skip


class Sums(nn.Module):
    """Knows the classes, and says the same in every form: nothing in it is computed in bfloat16."""

    def forward(self, x):
        return x.mean((2, 3))[:, :2] * 20.0


def train(folder, work, *, taught):
    """Fine-tune a network on the pictures in `folder`; `taught` by one that knows them, or by itself."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Dropout(0.3), nn.Linear(400, 2)
    )
    student = Variant(capture.capture(net, INPUT), INPUT)
    teacher = Variant(capture.capture(Sums(), INPUT), INPUT) if taught else student
    data = datasets.load(str(folder / "pictures"), cache=folder / "cache")
    work.mkdir(exist_ok=True)
    return finetune(student, Context(teacher, data, work, threads=1, train_threads=1), SETTINGS)


@pytest.mark.slow
@pytest.mark.parametrize("taught", [False, True])
def test_killed_at_any_moment_it_ends_with_the_same_weights(tmp_path, taught):
    random = np.random.default_rng(0)
    for channel, name in enumerate(("a", "b")):
        (tmp_path / "pictures" / name).mkdir(parents=True)
        for number in range(30):
            pixels = random.integers(0, 200, (12, 12, 3), dtype=np.uint8)
            pixels[..., channel] += 40
            Image.fromarray(pixels).save(tmp_path / "pictures" / name / f"{number}.png")
    unbroken = train(tmp_path, tmp_path / "unbroken", taught=taught)
    assert unbroken.teacher == ("cached" if taught else None)
    killed, reached = tmp_path / "killed", [0]
    for lines in (0, 3, 4):
        command = [sys.executable, __file__, str(tmp_path), str(killed), *(["taught"] * taught)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            told = [json.loads(process.stdout.readline()) for _ in range(lines)]
            # The first time before it tells anything: where it asks the teacher, or soon after.
            while process.poll() is None and not list(killed.glob("training-*/state.safetensors")):
                time.sleep(0.001)
            os.kill(process.pid, signal.SIGKILL)
        assert process.returncode == -signal.SIGKILL
        reached += told[-1:]
    assert 0 < reached[1] < reached[2] < 60
    resumed = train(tmp_path, killed, taught=taught)
    assert [epoch.loss for epoch in resumed.history] == [epoch.loss for epoch in unbroken.history]
    expected = unbroken.variant.model.state_dict()
    for name, value in resumed.variant.model.state_dict().items():
        assert torch.equal(value, expected[name])
    assert resumed.seconds > resumed.seconds_per_epoch * resumed.epochs


class Told(logging.Handler):
    """Prints the epoch of every state of progress."""

    def emit(self, record):
        if hasattr(record, "live") and record.getMessage().startswith("epoch"):
            print(json.dumps(int(record.getMessage().split()[1].split("/")[0])), flush=True)  # noqa: T201


if __name__ == "__main__":
    logger = logging.getLogger("slimcv")
    logger.setLevel(logging.DEBUG)
    logger.addHandler(Told())
    train(Path(sys.argv[1]), Path(sys.argv[2]), taught=len(sys.argv) > 3)
