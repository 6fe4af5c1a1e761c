"""Commands under launchers, as users start them: torchrun and accelerate launch, two processes each."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2")
ACCELERATE = ("-m", "accelerate.commands.launch", "--num_processes", "2")
RECIPE = """
description: train
objective: size
gate: {max_drop: 100}
steps:
  - depthwise_separable: {min_channels: 1}
  - finetune: {epochs: 2, batch: 8, precision: fp32}
    gate: {max_drop: 100}
"""
WITNESS = """
import os
import sys

WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT
CHANGES = ("os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.link", "os.symlink", "os.truncate")
out = os.path.abspath("out")

def witness(event, arguments):
    if event in CHANGES or (event == "open" and isinstance(arguments[2], int) and arguments[2] & WRITES):
        for path in arguments:
            if isinstance(path, str) and os.path.abspath(path).startswith(out):
                print(event, path, file=told, flush=True)

if "RANK" in os.environ:
    told = open(f"written-{os.environ['RANK']}", "a")
    sys.addaudithook(witness)
"""
"""A sitecustomize.py: every process of a launcher writes down what it changes below `out`."""


@pytest.fixture
def place(tmp_path):
    """A folder with a network, a recipe and pictures of two classes."""
    random = np.random.default_rng(0)
    for part, count in (("train", 14), ("val", 4)):
        for label, name in enumerate(("green", "red")):
            folder = tmp_path / "pictures" / part / name
            folder.mkdir(parents=True)
            for number in range(count):
                pixels = random.integers(0, 160, (12, 12, 3), dtype=np.uint8)
                pixels[:, :, 1 - label] += 60
                Image.fromarray(pixels).save(folder / f"{number:02}.png")
    torch.manual_seed(0)
    body = (nn.Conv2d(3, 32, 3), nn.ReLU(), nn.Conv2d(32, 64, 3), nn.BatchNorm2d(64), nn.ReLU())
    net = nn.Sequential(*body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 2))
    torch.save(net, tmp_path / "model.pt")
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    (tmp_path / "witness").mkdir()
    (tmp_path / "witness" / "sitecustomize.py").write_text(WITNESS)
    return tmp_path


def start(place, *words):
    """Run a launcher to its end; its exit code, stdout and stderr."""
    own = {"OMP_NUM_THREADS": "1", "XDG_CACHE_HOME": str(place / "cache"), "HF_HOME": str(place / "hf")}
    own["PYTHONPATH"] = os.pathsep.join([str(place / "witness"), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, *map(str, words)],
        cwd=place,
        env={**os.environ, **own},
        text=True,
        capture_output=True,
        timeout=500,
    )
    return done.returncode, done.stdout, done.stderr


def written(place):
    """What each of two processes changed below `out`."""
    return [(place / f"written-{rank}").read_text("utf-8") for rank in (0, 1)]


OPTIMIZE = (
    "optimize", "model.pt", "--recipe", "recipe.yaml", "--input", "3x12x12", "--data", "pictures",
    "--threads", "1", "--quick", "--out", "out", "--format", "json",
)  # fmt: skip


@pytest.mark.slow
def test_accelerate_launch_just_works_and_rank_0_alone_writes(place):
    launch = (*ACCELERATE, "--multi_gpu", "--num_machines", "1", "--main_process_port", "0", "-m", "slimcv")
    code, said, complained = start(place, *launch, *OPTIMIZE)
    assert code == 0, complained
    assert "2 processes on 1 machine" in complained
    steps = {step["name"]: step for step in json.loads(said)["steps"]}
    assert steps["depthwise_separable"]["outcome"] == "accepted", steps["depthwise_separable"]["reason"]
    assert steps["finetune"]["details"]["variant"]["finetune"]["processes"] == 2
    assert json.loads(said) == json.loads((place / "out" / "report.json").read_text("utf-8"))
    first, second = written(place)
    assert "report.json" in first
    assert second == ""


@pytest.mark.slow
def test_accelerate_that_starts_one_process_only_is_warned_of_with_the_right_command(place):
    launch = (*ACCELERATE, "--cpu", "--num_machines", "1", "-m", "slimcv")
    _, said, complained = start(place, *launch, "optimize", "absent.pt")
    assert said == ""
    (line,) = (line for line in complained.splitlines() if "accelerate started this process alone" in line)
    assert "accelerate launch --multi_gpu --num_processes N -m slimcv optimize" in line


@pytest.mark.slow
def test_a_command_for_one_process_is_the_work_of_rank_0(place):
    words = ("ladder", "model.pt", "--data", "pictures", "--input", "3x12x12", "--rows", "original")
    code, said, complained = start(
        place, *TORCHRUN, "-m", "slimcv", *words, "--epochs", 0, "--out", "out", "--format", "json"
    )
    assert code == 0, complained
    assert [row["name"] for row in json.loads(said)["rows"]] == ["original"]
    assert complained.count("rank 1 of 2 ends here: slimcv ladder is the work of rank 0 alone") == 1
    assert "another slimcv" not in complained
    first, second = written(place)
    assert "ladder.json" in first
    assert second == ""
