"""Checkpoints: whole round trips, and files that are whole or not there."""

import json
import subprocess
import sys
import zipfile

import pytest
import torch
from torch import nn

from slimcv import models
from slimcv.errors import SlimcvError
from slimcv.models import capture, checkpoint
from slimcv.step import InputSpec, Variant

SMALL = InputSpec(3, 16, 16, mean=(0.1, 0.2, 0.3), std=(0.5, 0.6, 0.7))


def variant():
    network = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(inplace=True), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Dropout(0.5), nn.Linear(4, 2),
    )  # fmt: skip
    return Variant(capture.capture(network, SMALL), SMALL, classes=("cat", "dog"), details={"source": "x"})


def test_a_checkpoint_is_read_back_equal_with_everything_known_about_it(tmp_path):
    before = variant()
    checkpoint.save(before, tmp_path / "c.pt2")
    after = checkpoint.read(tmp_path / "c.pt2")
    x = torch.randn(3, 3, 16, 16)
    assert torch.equal(after.model(x), before.model(x))
    assert list(after.model.state_dict()) == list(before.model.state_dict())
    assert (after.input, after.classes, after.details) == (before.input, before.classes, before.details)
    assert (after.precision, after.runtime, after.int8_mac_share) == ("fp32", "eager", None)
    assert any(isinstance(m, nn.Dropout) and m.p == 0.5 for m in after.model.modules())


def test_a_checkpoint_can_be_trained_on(tmp_path):
    checkpoint.save(variant(), tmp_path / "c.pt2")
    model = checkpoint.read(tmp_path / "c.pt2").model
    capture.set_training(model, True)
    model(torch.randn(4, 3, 16, 16)).square().sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    assert int(model.get_submodule("1").num_batches_tracked) == 1


def test_a_checkpoint_is_a_model_file_like_any_other(tmp_path):
    checkpoint.save(variant(), tmp_path / "c.pt2")
    loaded = models.load(str(tmp_path / "c.pt2"))
    assert (loaded.input, loaded.classes) == (SMALL, ("cat", "dog"))
    overridden = models.load(
        str(tmp_path / "c.pt2"), input="3x24x24", classes=("a", "b"), mean=(0.0, 0.0, 0.0)
    )
    assert str(overridden.input) == "3x24x24"
    assert (overridden.classes, overridden.input.mean) == (("a", "b"), (0.0, 0.0, 0.0))


def test_a_checkpoint_holds_the_weights_and_little_else(tmp_path):
    checkpoint.save(variant(), tmp_path / "c.pt2")
    assert (tmp_path / "c.pt2").stat().st_size < 60_000


@pytest.mark.parametrize(
    "content", [b"", b"text, not a model", b"PK\x03\x04 cut"], ids=["empty", "text", "zip"]
)
def test_a_file_that_is_no_checkpoint_is_refused(tmp_path, content):
    (tmp_path / "c.pt2").write_bytes(content)
    with pytest.raises(SlimcvError):
        checkpoint.read(tmp_path / "c.pt2")
    with pytest.raises(SlimcvError):
        models.load(str(tmp_path / "c.pt2"))


def test_a_truncated_checkpoint_is_refused(tmp_path):
    path = tmp_path / "c.pt2"
    checkpoint.save(variant(), path)
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(SlimcvError, match="damaged"):
        checkpoint.read(path)


def test_a_missing_checkpoint_is_refused(tmp_path):
    with pytest.raises(SlimcvError, match="No such file"):
        checkpoint.read(tmp_path / "c.pt2")


def test_an_unwritable_place_is_refused(tmp_path):
    with pytest.raises(SlimcvError, match="cannot write"):
        checkpoint.save(variant(), tmp_path / "nowhere" / "c.pt2")


@pytest.mark.parametrize(
    "change",
    [
        {"classes": 5}, {"classes": [1, 2]}, {"precision": None}, {"details": []}, {"int8_mac_share": "most"},
        {"input": 3}, {"input": {"height": "8"}}, {"input": {"height": 10**7, "width": 10**7}},
        {"input": {"std": ["a", "b", "c"]}}, {"input": {"mean": None}}, {"input": {"channels": 0}},
    ],
    ids=str,
)  # fmt: skip
def test_a_sidecar_of_other_types_is_not_one_slimcv_wrote(tmp_path, change):
    path = tmp_path / "c.pt2"
    checkpoint.save(variant(), path)
    with zipfile.ZipFile(path) as old:
        records = {name: old.read(name) for name in old.namelist()}
    name = next(name for name in records if name.endswith(checkpoint.SIDECAR))
    sidecar = json.loads(records[name])
    records[name] = json.dumps(merged(sidecar, change)).encode()
    with zipfile.ZipFile(path, "w") as new:
        for record, content in records.items():
            new.writestr(record, content)
    for load in (checkpoint.read, lambda file: models.load(str(file))):
        with pytest.raises(SlimcvError, match="not one slimcv wrote"):
            load(path)


def merged(value, change):
    if not isinstance(value, dict) or not isinstance(change, dict):
        return change
    return value | {key: merged(value[key], item) for key, item in change.items()}


FULL_DISK = """
import resource, signal, sys
from pathlib import Path
import torch
from torch import nn
from slimcv.errors import SlimcvError
from slimcv.models import capture, checkpoint
from slimcv.step import InputSpec, Variant

path, spec = Path(sys.argv[1]), InputSpec(3, 8, 8)
network = nn.Sequential(nn.Flatten(), nn.Linear(192, 1000))
variant = Variant(capture.capture(network, spec), spec)
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
try:
    checkpoint.save(variant, path)
except SlimcvError as error:
    print("refused:", error.message)
"""


def test_a_full_disk_leaves_the_earlier_file_and_no_scraps(tmp_path):
    path = tmp_path / "c.pt2"
    path.write_bytes(b"the earlier file")
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(path)], capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert "refused: cannot write" in done.stdout
    assert path.read_bytes() == b"the earlier file"
    assert [item.name for item in tmp_path.iterdir()] == ["c.pt2"]
