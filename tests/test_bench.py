"""Targets against each other: what they stand for, that all are timed, that a broken one stays."""

import json
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from slimcv import bench, cli, runtimes
from slimcv import data as datasets
from slimcv.errors import SlimcvError
from slimcv.measure import accuracy, latency, throughput
from slimcv.measure.threads import available
from slimcv.models import capture
from slimcv.report import figures
from slimcv.report.bench import render_bench
from slimcv.results import Paired
from slimcv.step import InputSpec, Variant

INPUT = InputSpec(3, 16, 12)


def network():
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))


@pytest.fixture
def variant():
    return Variant(capture.capture(network(), INPUT), INPUT)


@pytest.fixture
def data(tmp_path, write_noise):
    write_noise(tmp_path, size=16, each=20)
    return datasets.load(str(tmp_path / "pictures"), cache=tmp_path / "cache")


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


def test_a_hundred_calls_have_a_99th_percentile_and_each_row_has_its_start_and_memory(variant, tmp_path):
    found = [bench.Target("network", runtimes.write(variant, "openvino", tmp_path), "openvino", INPUT)]
    (row,) = bench.compare(found, threads=[1], batches=[1])
    assert row.samples == bench.SAMPLES == 100
    assert row.p50_ms <= row.p90_ms <= row.p99_ms
    assert row.spread > 0
    assert row.load_seconds > 0
    assert row.first_call_ms > 0
    assert row.model_bytes >= 0
    assert (row.throughput_spread, row.throughput_ratio) == (None, None)


def test_throughput_is_measured_in_rounds_and_compared_with_an_interval(variant, tmp_path):
    """The second target has two hundred times the work, in a call that takes as long to begin."""
    layers = nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Conv2d(16, 256, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    wide = Variant(capture.capture(nn.Sequential(*layers), INPUT), INPUT)
    found = [
        bench.Target(name, runtimes.write(each, "openvino", tmp_path / name), "openvino", INPUT)
        for name, each in (("small", variant), ("large", wide))
    ]
    small, large = bench.compare(found, threads=[1], batches=[2], streams=2, quick=True)
    assert small.throughput_ratio == bench.Ratio(1.0, 1.0, 1.0)
    ratio = large.throughput_ratio
    assert ratio.value == pytest.approx(large.throughput_ips / small.throughput_ips)
    assert ratio.low <= ratio.value <= ratio.high < 1
    assert ratio.value != large.ratio.value, "the ratio of latencies is another one"
    assert large.throughput_spread >= 0


def test_rounds_of_throughput_are_in_turns(monkeypatch, variant, tmp_path):
    """Who has a turn is seen where the processes are asked."""
    path = runtimes.write(variant, "openvino", tmp_path)
    contender = latency.Contender(path, "openvino", 1, INPUT)
    turns = []
    take_turn = throughput._Crew.take_turn
    monkeypatch.setattr(
        throughput._Crew,
        "take_turn",
        lambda crew: (turns.append(crew._workers[0].name), take_turn(crew))[1],
    )
    found = throughput.side_by_side({"a": contender, "b": contender}, streams=1, quick=True)
    assert turns == ["a", "b", "b", "a", "a", "b", "b", "a", "a", "b"]
    assert all(len(each.rounds_ips) == throughput.QUICK_ROUNDS for each in found.values())


def test_a_spread_is_half_the_interquartile_range_over_the_median():
    found = throughput.Throughput(2, (80.0, 90.0, 100.0, 110.0, 120.0))
    assert (found.ips, found.spread) == (100.0, pytest.approx(0.1))


def test_top1_is_compared_picture_by_picture_with_the_first(variant, data, tmp_path):
    """The other network has the first one's two outputs swapped: it is right wherever that one is wrong."""
    swapped = capture.copy(variant.model)
    with torch.no_grad():
        for parameter in list(swapped.parameters())[-2:]:
            parameter.copy_(parameter.flip(0))
    networks = {"first": variant, "same": variant, "swapped": replace(variant, model=swapped)}
    found = [
        bench.Target(name, runtimes.write(each, "onnxruntime", tmp_path / name), "onnxruntime", INPUT)
        for name, each in networks.items()
    ]
    rows = list(bench.compare(found, threads=[1], batches=[1], split=data.val, quick=True))
    first, same, other = rows
    pictures = len(data.val)
    assert first.paired is None
    assert same.paired == Paired.counted(0, 0, pictures)
    right = round(first.top1 * pictures / 100)
    assert other.paired == Paired.counted(right, pictures - right, pictures)
    document = bench.Comparison("latency", tuple(rows)).as_json()
    change = figures.points(other.paired.difference)
    for format in ("text", "markdown"):
        text = render_bench(document, format)
        assert change in text
        assert "McNemar" in " ".join(text.split())


def test_a_model_of_other_classes_has_no_top1(data, tmp_path):
    layers = nn.Conv2d(3, 8, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 1000)
    foreign = Variant(capture.capture(nn.Sequential(*layers).eval(), INPUT), INPUT)
    path = runtimes.write(foreign, "onnxruntime", tmp_path)
    prepared = runtimes.prepare(path, "onnxruntime", threads=1)
    with pytest.raises(SlimcvError, match="the model has 1000 outputs, the data 2 classes"):
        accuracy.evaluate(prepared, data.val, INPUT)
    target = bench.Target("foreign", path, "onnxruntime", INPUT)
    (row,) = bench.compare([target], threads=[1], batches=[1], split=data.val, quick=True)
    assert row.top1 is None
    assert row.p50_ms > 0


def test_threads_are_by_default_those_allowed_and_stand_in_the_row(variant, tmp_path, monkeypatch, capsys):
    allowed = available()
    path = runtimes.write(variant, "onnxruntime", tmp_path)
    code, out, _ = call(monkeypatch, capsys, path, "--quick", "--format", "json")
    assert code == 0
    document = json.loads(out)
    assert [row["threads"] for row in document["rows"]] == [allowed]
    assert document["environment"]["threads_allowed"] == allowed


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
