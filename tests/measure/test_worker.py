"""The worker's protocol: answers alone on stdout, whatever the libraries print."""

import json
import subprocess
import sys

import pytest
from torch import nn

from slimcv import runtimes
from slimcv.models import capture
from slimcv.step import InputSpec, Variant

INPUT = InputSpec(3, 8, 8)


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
    return runtimes.write(
        Variant(capture.capture(net, INPUT), INPUT), "onnxruntime", tmp_path_factory.mktemp("w")
    )


def _talk(*commands):
    lines = "".join(json.dumps(command) + "\n" for command in commands)
    done = subprocess.run(
        [sys.executable, "-m", "slimcv.measure.worker"],
        input=lines,
        capture_output=True,
        text=True,
        check=False,
    )
    return done, [json.loads(line) for line in done.stdout.splitlines()]


START = {"do": "start", "runtime": "onnxruntime", "threads": 1, "allocator": "default"}


def test_every_command_is_answered_in_order(path):
    done, answers = _talk(
        START,
        {"do": "baseline"},
        {"do": "load", "path": str(path), "shape": [3, 8, 8], "seed": 0},
        {"do": "warm", "batch": 1, "calls": 3, "seconds": 0.0},
        {"do": "time", "batch": 2, "calls": 4, "discard": 1},
        {"do": "memory", "batch": 1, "calls": 2},
        {"do": "quit"},
    )
    assert done.returncode == 0
    assert [sorted(answer) for answer in answers] == [
        ["tuned"],
        ["baseline_bytes"],
        ["load_seconds"],
        ["call_ms", "first_call_ms", "precision"],
        ["ms"],
        ["baseline_bytes", "loading_peak_bytes", "predicting_peak_bytes"],
    ]
    assert len(answers[4]["ms"]) == 4


def test_a_fault_the_user_can_mend_is_an_answer_with_a_hint(tmp_path):
    load = {"do": "load", "path": str(tmp_path / "absent.onnx"), "shape": [3, 8, 8], "seed": 0}
    done, answers = _talk(START, load)
    assert done.returncode == 0
    assert "absent.onnx" in answers[1]["error"]
    assert answers[1]["hint"]


def test_the_end_of_the_input_ends_the_worker():
    done, answers = _talk()
    assert (done.returncode, answers) == (0, [])
