"""Targets against each other: what they stand for, that all are timed, that a broken one stays."""

import json
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from slimcv import bench, cli, runtimes
from slimcv.errors import SlimcvError
from slimcv.models import capture
from slimcv.step import InputSpec, Variant

INPUT = InputSpec(3, 16, 12)


def network():
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))


@pytest.fixture
def variant():
    return Variant(capture.capture(network(), INPUT), INPUT)


def call(monkeypatch, capsys, *words):
    monkeypatch.setattr(sys, "argv", ["slimcv", "bench", *map(str, words)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    said = capsys.readouterr()
    return ended.value.code, said.out, said.err


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_a_file_says_itself_what_it_is_fed(variant, tmp_path, runtime):
    path = runtimes.write(variant, runtime, tmp_path)
    (target,) = bench.targets(str(path), tmp_path)
    assert (target.runtime, target.input.shape) == (runtime, (3, 16, 12))


def test_a_model_is_written_for_the_runtimes_asked_for(tmp_path):
    torch.save(network(), tmp_path / "net.pt")
    found = bench.targets(str(tmp_path / "net.pt"), tmp_path, runtime="openvino", input="3x16x12")
    assert [(target.runtime, target.path.suffix) for target in found] == [("openvino", ".xml")]
    with pytest.raises(SlimcvError, match="no file"):
        bench.targets(str(tmp_path / "absent.onnx"), tmp_path)


def test_rows_come_for_every_thread_count_and_batch_against_the_first(variant, tmp_path):
    found = [
        bench.Target(name, runtimes.write(variant, name, tmp_path / name), name, INPUT)
        for name in ("onnxruntime", "openvino")
    ]
    rows = list(bench.compare(found, threads=[1], batches=[1, 4], quick=True))
    assert [(row.name, row.batch) for row in rows] == [
        ("onnxruntime", 1), ("openvino", 1), ("onnxruntime", 4), ("openvino", 4)
    ]  # fmt: skip
    assert rows[0].ratio.value == pytest.approx(1.0)
    assert all(row.p50_ms > 0 and row.throughput_ips > 0 and row.size_bytes > 0 for row in rows)
    assert {row.p99_ms for row in rows} == {None}, "twenty samples have no 99th percentile"


def test_a_target_that_cannot_run_stays_with_its_reason(variant, tmp_path):
    (tmp_path / "broken.onnx").write_bytes(b"no model")
    found = [
        bench.Target("broken", tmp_path / "broken.onnx", "onnxruntime", INPUT),
        bench.Target("sound", runtimes.write(variant, "onnxruntime", tmp_path), "onnxruntime", INPUT),
    ]
    broken, sound = bench.compare(found, threads=[1], batches=[1], quick=True)
    assert "ONNX Runtime does not load" in broken.problem
    assert broken.p50_ms is None
    assert sound.ratio.value == pytest.approx(1.0)


@pytest.mark.slow
def test_the_command_has_a_throughput_mode_and_says_accuracy(variant, tmp_path, monkeypatch, capsys):
    random = np.random.default_rng(0)
    for name in ("cat", "dog"):
        (tmp_path / "pictures" / name).mkdir(parents=True)
        for number in range(6):
            pixels = random.integers(0, 255, (12, 12, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "pictures" / name / f"{number}.png")
    path = runtimes.write(variant, "onnxruntime", tmp_path)
    words = (path, path, "--threads", "1", "--mode", "throughput", "--streams", "2", "--quick")
    code, out, _ = call(monkeypatch, capsys, *words, "--data", tmp_path / "pictures", "--format", "json")
    document = json.loads(out)
    assert (code, document["mode"]) == (0, "throughput")
    first, second = document["rows"]
    assert second["name"] == f"{path} #2"
    assert first["streams"] == 2
    assert first["top1"] == second["top1"] is not None


def test_bad_numbers_and_unknown_runtimes_are_refused(monkeypatch, capsys, tmp_path):
    for words, message in (
        (("--threads", "1,x"), "--threads 1,x"),
        (("--streams", "2"), "--streams belongs to throughput"),
        (("--runtime", "openvin"), "unknown runtime"),
    ):
        code, out, err = call(monkeypatch, capsys, tmp_path / "net.onnx", *words)
        assert (code, out) == (2, "")
        assert message in err
