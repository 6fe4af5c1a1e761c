"""Weights in mapped files: the same answers, less memory, nothing left behind."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from slimcv.models import capture, resting
from slimcv.step import InputSpec

INPUT = InputSpec(3, 16, 16)


def network():
    torch.manual_seed(0)
    layers = nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 14 * 14, 512), nn.Linear(512, 2)
    return capture.capture(nn.Sequential(*layers), INPUT)


def test_it_answers_as_before_and_leaves_no_file(tmp_path):
    model, batch = network(), torch.randn(2, *INPUT.shape)
    before = model(batch)
    small = model.get_submodule("0").weight.data_ptr()
    assert resting.rest(model, tmp_path) == 8 * 14 * 14 * 512 * 4
    assert torch.equal(model(batch), before)
    assert model.get_submodule("0").weight.data_ptr() == small, "what is small stays where it is"
    assert list(tmp_path.iterdir()) == []
    assert torch.equal(capture.copy(model)(batch), before)


def test_a_disk_that_refuses_leaves_the_weights_in_memory(tmp_path):
    model = network()
    expected = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    assert resting.rest(model, tmp_path / "missing") == 0
    assert all(torch.equal(tensor, expected[name]) for name, tensor in model.state_dict().items())


RESIDENT = """
import sys
from pathlib import Path
import torch
from slimcv.measure import allocator, memory
from slimcv.models import resting
model = torch.nn.Linear(8192, 8192)
before = memory.resident()
assert resting.rest(model, Path(sys.argv[1])) == 4 * 8192 * 8192
allocator.trim()
print(before - memory.resident())
"""


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="the system does not tell what is resident")
def test_memory_is_given_back(tmp_path):
    command = [sys.executable, "-c", RESIDENT, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert int(done.stdout) > 0.9 * 4 * 8192 * 8192
