"""Several processes train as one: shares, orders, and what is said when one of them ends."""

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import nn

from slimcv import data as datasets
from slimcv.cli import together
from slimcv.errors import NotApplicable, SlimcvError
from slimcv.models import capture
from slimcv.optimization import Caching
from slimcv.step import Context, InputSpec, Variant
from slimcv.train import finetune
from slimcv.train import state as states
from slimcv.train.evaluation import evaluate
from slimcv.train.feed import Feed
from slimcv.train.processes import agreement, launched
from slimcv.train.processes.group import Processes
from slimcv.train.pruning import PruningSettings
from slimcv.train.settings import FinetuneSettings
from slimcv.train.state import State

INPUT = InputSpec(3, 12, 12)
SETTINGS = FinetuneSettings(
    epochs=3, batch=8, lr=0.01, accumulate=2, ema=0.9, flip=False, precision="fp32", checkpoint_every=1e-6
)
PRUNED = PruningSettings(**SETTINGS.model_dump(), sparsity=0.5)
CHANGED = SETTINGS.model_copy(update={"teacher": "live", "crop": 0.2, "flip": True})
RECIPE = """
description: train
objective: size
gate: {max_drop: 100}
steps:
  - finetune: {epochs: 10000, batch: 8, precision: fp32}
    gate: {max_drop: 100}
"""


class Sums(nn.Module):
    """Knows the classes: the brightest channel, blue first."""

    def forward(self, x):
        return x.mean((2, 3)).flip(1) * 20


def plain():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3)
    )


def normed():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Dropout(0.1), nn.Linear(8, 3),
    )  # fmt: skip


def thinned():
    return plain()


def member(rank, count):
    processes = Processes()
    processes.rank, processes.count = rank, count
    return processes


@pytest.fixture
def pictures(tmp_path):
    """Three classes, each a colour in noise, 14 pictures a class to train with and to tune by."""
    random = np.random.default_rng(0)
    for part, count in (("train", 14), ("val", 2)):
        for label, name in enumerate(("blue", "green", "red")):
            folder = tmp_path / "pictures" / part / name
            folder.mkdir(parents=True)
            for number in range(count):
                pixels = random.integers(0, 160, (12, 12, 3), dtype=np.uint8)
                pixels[:, :, 2 - label] += 60
                Image.fromarray(pixels).save(folder / f"{number:02}.png")
    return tmp_path / "pictures"


@pytest.fixture
def data(pictures, tmp_path):
    return datasets.load(str(pictures), cache=tmp_path / "cache")


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, None),
        ({"WORLD_SIZE": "2"}, None),
        ({"RANK": "0", "WORLD_SIZE": "1"}, None),
        (
            {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "1", "MASTER_ADDR": "a", "MASTER_PORT": "7"},
            launched.Launch(1, 2, 1, "a", "7"),
        ),
        (
            {"PMI_RANK": "3", "PMI_SIZE": "4", "MPI_LOCALNRANKS": "4"},
            launched.Launch(3, 4, 4, launched.LOCALHOST, launched.PORT),
        ),
    ],
)
def test_the_launcher_says_which_of_how_many_a_process_is(environment, expected):
    assert launched.here(environment) == expected


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"RANK": "0", "WORLD_SIZE": "4", "LOCAL_WORLD_SIZE": "2"}, "not told where to meet"),
        ({"RANK": "one", "WORLD_SIZE": "4"}, "RANK is 'one', not a number"),
    ],
)
def test_a_launcher_that_says_too_little_is_refused(environment, message):
    with pytest.raises(SlimcvError, match=message):
        launched.here(environment)


def test_a_process_that_forgets_the_others_is_alone_for_every_launcher():
    for words in (("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR"), ("PMI_RANK", "PMI_SIZE")):
        environment = {**dict.fromkeys(words, "2"), "PATH": "/bin"}
        assert launched.place(environment) == (2, 2)
        launched.forget(environment)
        assert environment == {"PATH": "/bin"}


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"ACCELERATE_USE_CPU": "True", "MASTER_ADDR": "127.0.0.1"}, True),
        ({"ACCELERATE_USE_CPU": "False"}, False),
        ({"ACCELERATE_USE_CPU": "True", "MASTER_ADDR": "127.0.0.1", "RANK": "0"}, False),
        ({"ACCELERATE_USE_CPU": "True", "MASTER_ADDR": "127.0.0.1", "PMI_RANK": "0"}, False),
        ({"MASTER_ADDR": "127.0.0.1"}, False),
    ],
)
def test_a_launcher_that_started_one_process_of_several_is_recognised(environment, expected):
    assert launched.left_alone(environment) is expected


def test_the_shares_of_all_processes_are_the_batches_of_one(data):
    alone = list(Feed(data.train, INPUT, SETTINGS, teaching=None, seed=0).epoch(1))
    feeds = [
        Feed(data.train, INPUT, SETTINGS, teaching=None, seed=0, processes=member(rank, 3))
        for rank in range(3)
    ]
    for whole, *shares in zip(alone, *(feed.epoch(1) for feed in feeds), strict=True):
        assert torch.equal(torch.cat([share.pictures for share in shares]), whole.pictures)
        assert torch.equal(torch.cat([share.labels for share in shares]), whole.labels)
        assert sum(share.share for share in shares) == pytest.approx(1)
        assert {share.whole for share in shares} == {len(whole.labels)}
    for feed in feeds:
        assert {len(batch.labels) for batch in feed.epoch(2)} == set(feed.sizes)


def test_too_few_pictures_for_so_many_processes_are_refused(data, tmp_path):
    student = Variant(capture.capture(plain(), INPUT), INPUT)
    context = Context(student, data, tmp_path, threads=1, train_threads=1, processes=member(0, 20))
    with pytest.raises(
        NotApplicable, match=f"{len(data.train)} training pictures are too few for 20 processes"
    ):
        finetune(student, context, SETTINGS)
    context = Context(student, data, tmp_path, threads=1, train_threads=1, processes=member(0, 5))
    with pytest.raises(SlimcvError, match="a batch of 8 is too small for 5 processes") as caught:
        finetune(student, context, SETTINGS)
    assert "10 or more" in caught.value.hint


def test_pictures_are_the_same_wherever_they_lie_and_whenever_they_were_written(pictures, data, tmp_path):
    shutil.copytree(pictures, tmp_path / "copied", copy_function=shutil.copy)
    elsewhere = datasets.load(str(tmp_path / "copied"), cache=tmp_path / "cache")
    assert elsewhere.fingerprint != data.fingerprint
    assert agreement.described(elsewhere) == agreement.described(data)
    changed = tmp_path / "copied" / "train" / "red" / "03.png"
    Image.fromarray(np.zeros((12, 12, 3), np.uint8)).save(changed)
    other = datasets.load(str(tmp_path / "copied"), cache=tmp_path / "cache")
    assert agreement.described(other) != agreement.described(data)


def test_a_state_is_the_same_after_its_way_to_another_process():
    given = State({"a/b": torch.randn(3, 4).t(), "c": torch.tensor(2)}, {"rate": 0.1, "names": ["a"]})
    arrived = states.unpacked(states.packed(given))
    assert arrived.values == given.values
    assert all(torch.equal(arrived.tensors[name], value) for name, value in given.tensors.items())


def test_a_network_keeps_the_order_of_its_parameters_on_the_way():
    variant = Variant(capture.capture(normed(), INPUT), INPUT)
    arrived = agreement.unpacked(agreement.packed(variant))
    assert arrived.input == variant.input
    before, after = (list(each.model.named_parameters()) for each in (variant, arrived))
    assert [name for name, _ in after] == [name for name, _ in before]
    assert all(torch.equal(one, other) for (_, one), (_, other) in zip(before, after, strict=True))


# Two real processes


def launch(*words, folder, **options):
    """Two processes of a Python program, started by torchrun."""
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "XDG_CACHE_HOME": str(folder / "cache")}
    environment["TMPDIR"] = str(folder / "temporary")
    (folder / "temporary").mkdir(exist_ok=True)
    return subprocess.Popen(
        [sys.executable, *torchrun, *map(str, words)],
        cwd=folder,
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        **options,
    )


def train(folder, group=None):
    """One whose batches are all that counts, one with random changes, one pruned; written by rank 0."""
    folder = Path(folder)
    source, kept = str(folder / "pictures"), Caching(folder / "cache", None, keep=True)
    if group is not None and group.rank:
        together.follow(group, source, kept)
        return
    work = folder / f"work-{1 if group is None else group.count}"
    work.mkdir()
    teacher = Variant(capture.capture(nn.Sequential(Sums()), INPUT), INPUT)
    together.begin(group, teacher, source, classes=None, seed=0)
    data = datasets.load(source, cache=kept.folder)
    context = Context(teacher, data, work, threads=1, train_threads=1)
    context = together.lead(group, context, trains=True)
    found = {}
    for network, settings in ((plain, SETTINGS), (normed, CHANGED), (thinned, PRUNED)):
        result = finetune(Variant(capture.capture(network(), INPUT), INPUT), context, settings)
        save_file(
            {name: value.contiguous() for name, value in result.variant.model.state_dict().items()},
            work / f"{network.__name__}.safetensors",
        )
        found[network.__name__] = result.summary()
    (work / "found.json").write_text(json.dumps(found))


@pytest.mark.slow
def test_two_processes_train_as_one(pictures, data, tmp_path):
    with launch(__file__, tmp_path, folder=tmp_path) as process:
        said, complained = process.communicate(timeout=120)
    assert process.returncode == 0, complained
    assert (said, complained.count("before training"), complained.count("rank 1")) == ("", 3, 0)
    assert not list((tmp_path / "temporary").glob("slimcv-*"))
    train(tmp_path)
    found, alone = (json.loads((tmp_path / f"work-{n}" / "found.json").read_text()) for n in (2, 1))
    assert [each["processes"] for each in found.values()] == [2, 2, 2]
    assert found["plain"]["teacher"] == "cached"
    assert found["plain"]["teacher_top1"] == alone["plain"]["teacher_top1"] == 100
    for one, two in zip(alone["plain"]["history"], found["plain"]["history"], strict=True):
        assert two["tuning_top1"] == one["tuning_top1"]
        for name in ("loss", "train_top1", "tuning_loss", "averaged_loss"):
            assert two[name] == (one[name] and pytest.approx(one[name], rel=1e-3))
    expected, weights = (load_file(tmp_path / f"work-{n}" / "plain.safetensors") for n in (1, 2))
    for name, value in weights.items():
        assert torch.allclose(value, expected[name], atol=1e-3), name
    thin = load_file(tmp_path / "work-2" / "thinned.safetensors")
    zeros = sum(int((value == 0).sum()) for value in thin.values() if value.ndim > 1)
    assert zeros == sum(value.numel() for value in thin.values() if value.ndim > 1) // 2
    # Half of the tuning split was judged by the other process, with its own copy of what was trained.
    changed = found["normed"]
    assert (changed["teacher"], changed["best"] > 0) == ("live", True)
    model = capture.capture(normed(), INPUT)
    model.load_state_dict(load_file(tmp_path / "work-2" / "normed.safetensors"))
    best = changed["history"][changed["best"]]
    assert len(data.tuning) % 2
    score = evaluate(model, data.tuning, INPUT)
    assert best["averaged_loss" if changed["averaged"] else "tuning_loss"] == pytest.approx(
        score.loss, rel=1e-4
    )


def optimize(folder, *words):
    """The command that a user gives."""
    return launch(
        "-m", "slimcv", "optimize", "model.pt", "--recipe", "recipe.yaml", "--input", "3x12x12",
        "--threads", "1", "--quick", "--out", "out", *words, folder=folder,
    )  # fmt: skip


@pytest.fixture
def model(tmp_path):
    torch.save(normed(), tmp_path / "model.pt")
    (tmp_path / "recipe.yaml").write_text(RECIPE)


def until(stream, pattern):
    """Read lines up to one with the pattern."""
    lines = []
    for line in stream:
        lines.append(line)
        if found := re.search(pattern, line):
            return found
    raise AssertionError("".join(lines))


def ended(process):
    """What a launcher still says, and the seconds until it and all its processes have ended."""
    begun = time.monotonic()
    said, complained = process.communicate(timeout=60)
    return said, complained, time.monotonic() - begun


def ranks(launcher):
    """The processes of a launcher by their rank."""
    found = {}
    for child in subprocess.run(
        ["pgrep", "-P", str(launcher.pid)], stdout=subprocess.PIPE, text=True, check=True
    ).stdout.split():
        with contextlib.suppress(OSError):
            environment = Path(f"/proc/{child}/environ").read_bytes().split(b"\0")
            found |= {int(each[5:]): int(child) for each in environment if each.startswith(b"RANK=")}
    return found


@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 1])
def test_a_killed_process_ends_the_run_which_goes_on_with_the_same_command(pictures, model, tmp_path, victim):
    command = ("--data", "pictures", "--checkpoint-every", "1s")
    with optimize(tmp_path, *command) as launcher:
        assert until(launcher.stderr, r"(\d) processes on (\d) machine").groups() == ("2", "1")
        until(launcher.stderr, "epoch 40/10000")
        other = ranks(launcher)[victim]
        os.kill(other, signal.SIGKILL)
        said, complained, seconds = ended(launcher)
    assert launcher.returncode != 0
    assert seconds < 30
    assert said == ""
    (error,) = (line for line in complained.splitlines() if line.startswith("error:"))
    assert f"rank {victim} on {os.uname().nodename} (process {other}) ended without a word" in error
    with optimize(tmp_path, *command) as launcher:
        until(launcher.stderr, r"going on with an interrupted training at epoch \d\d")
        until(launcher.stderr, "epoch")
        launcher.send_signal(signal.SIGINT)
        said, complained, seconds = ended(launcher)
    assert launcher.returncode != 0
    assert seconds < 30
    assert complained.count("interrupted: the same command goes on") == 1
    assert "error:" not in complained
    assert said == ""


@pytest.mark.slow
def test_pictures_that_differ_are_one_error_in_every_process(pictures, model, tmp_path):
    (tmp_path / "elsewhere.py").write_text(
        "import os, numpy as np\n"
        "def pictures():\n"
        "    n = 30 + int(os.environ['RANK'])\n"
        "    random = np.random.default_rng(0)\n"
        "    part = random.integers(0, 255, (n, 12, 12, 3), dtype=np.uint8), np.arange(n) % 3\n"
        "    return {'train': part, 'val': part, 'classes': ['blue', 'green', 'red']}\n"
    )
    with optimize(tmp_path, "--data", "elsewhere.py:pictures") as launcher:
        said, complained, _ = ended(launcher)
    assert launcher.returncode != 0
    errors = [line for line in complained.splitlines() if line.startswith("error:")]
    assert 1 <= len(errors) <= 2
    assert all(
        "the pictures of rank 1" in error and "differ from those of rank 0" in error for error in errors
    )
    assert said == ""
    assert not (tmp_path / "out").exists()


if __name__ == "__main__":
    torch.set_num_threads(1)
    with together.joined(alone=False) as joined:
        train(sys.argv[1], joined)
