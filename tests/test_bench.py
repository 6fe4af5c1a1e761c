"""Targets against each other: what they stand for, that all are timed, that a broken one stays."""

import json
import sys
from dataclasses import replace

import numpy as np
import onnx
import pytest
import torch
from PIL import Image
from torch import nn

from slimcv import bench, cli, packed, runtimes
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
    small, large = bench.compare(found, threads=[1], batches=[2], streams={1: 2}, quick=True)
    assert small.throughput_ratio == latency.Ratio(1.0, 1.0, 1.0)
    ratio = large.throughput_ratio
    assert ratio.value == pytest.approx(large.throughput_ips / small.throughput_ips)
    assert ratio.low <= ratio.value <= ratio.high < 1
    assert ratio.value != large.ratio.value, "the ratio of latencies is another one"
    assert large.throughput_spread >= 0


def test_each_number_of_threads_has_the_streams_that_fit_beside_each_other(variant, tmp_path):
    assert bench.side_by_side([1, 2, 3], allowed=2) == {1: 2, 2: 1, 3: 1}
    found = [bench.Target("network", runtimes.write(variant, "onnxruntime", tmp_path), "onnxruntime", INPUT)]
    rows = list(bench.compare(found, threads=[1, 2], batches=[1], streams={1: 2, 2: 1}, quick=True))
    assert [(row.threads, row.streams) for row in rows] == [(1, 2), (2, 1)]
    document = bench.Comparison("throughput", tuple(rows)).as_json()
    for format in ("text", "markdown"):
        assert "streams" in render_bench(document, format)
    shown = [line.split("|")[3:6] for line in render_bench(document, "markdown").splitlines()[2:4]]
    assert [[cell.strip() for cell in row] for row in shown] == [["1", "1", "2"], ["2", "1", "1"]]


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


def test_where_the_first_cannot_be_asked_no_other_takes_its_place(variant, data, tmp_path):
    """Its latency is what the others are set against, so its answers are too, and it has none."""
    wider = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 7)).eval()
    networks = {"wider": Variant(capture.capture(wider, INPUT), INPUT), "a": variant, "b": variant}
    found = [
        bench.Target(name, runtimes.write(each, "onnxruntime", tmp_path / name), "onnxruntime", INPUT)
        for name, each in networks.items()
    ]
    rows = list(bench.compare(found, threads=[1], batches=[1], split=data.val, quick=True))
    assert rows[0].accuracy_problem is not None
    assert [row.ratio is not None for row in rows] == [True] * 3
    assert [row.top1 is not None for row in rows] == [False, True, True]
    assert [row.paired for row in rows] == [None] * 3


def fixed(variant, runtime, batch, folder):
    """A file as others export them: for so many pictures and no other number."""
    path = runtimes.write(variant, "onnxruntime", folder)
    model = onnx.load(path)
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = batch
    onnx.save(model, path)
    if runtime == "onnxruntime":
        return path
    openvino = runtimes.openvino.import_library()
    openvino.save_model(openvino.Core().read_model(path), folder / "model.xml")
    return folder / "model.xml"


@pytest.mark.parametrize(("runtime", "batch"), [("onnxruntime", 1), ("onnxruntime", 50), ("openvino", 3)])
def test_the_accuracy_of_a_file_for_one_batch_size_is_measured_with_that(
    variant, data, tmp_path, runtime, batch
):
    free = bench.Target("free", runtimes.write(variant, "onnxruntime", tmp_path), "onnxruntime", INPUT)
    path = fixed(variant, runtime, batch, tmp_path / "fixed")
    rows = list(
        bench.compare(
            [free, bench.Target("fixed", path, runtime, INPUT)],
            threads=[1],
            batches=[batch],
            split=data.val,
            quick=True,
        )
    )
    assert [(row.problem, row.accuracy_problem) for row in rows] == [(None, None)] * 2
    assert rows[1].top1 == rows[0].top1
    assert rows[1].paired == Paired.counted(0, 0, len(data.val))


class Picky(nn.Module):
    """Looks up a row that is not there for what has less contrast than the noise that calls are timed on."""

    def __init__(self):
        super().__init__()
        self.rows = nn.Embedding(1, 2)

    def forward(self, x):
        contrast = (x - x.mean((1, 2, 3), keepdim=True)).abs().mean((1, 2, 3))
        return self.rows((contrast < 0.7).long() * 9)


def test_accuracy_that_cannot_be_measured_has_its_reason_in_the_row(tmp_path):
    for name in ("black", "grey"):
        (tmp_path / "pictures" / name).mkdir(parents=True)
        for number in range(6):
            Image.new("L", (12, 16), number).save(tmp_path / "pictures" / name / f"{number}.png")
    split = datasets.load(str(tmp_path / "pictures"), cache=tmp_path / "cache").val
    picky = Variant(capture.capture(Picky().eval(), INPUT), INPUT)
    found = [bench.Target("picky", runtimes.write(picky, "onnxruntime", tmp_path), "onnxruntime", INPUT)]
    (row,) = bench.compare(found, threads=[1], batches=[1], split=split, quick=True)
    assert row.p50_ms > 0
    assert (row.problem, row.top1) == (None, None)
    assert "ONNX Runtime does not run the model" in row.accuracy_problem
    document = bench.Comparison("latency", (row,)).as_json()
    for format in ("text", "markdown"):
        assert "no top-1: ONNX Runtime does not run" in " ".join(render_bench(document, format).split())


def test_a_file_that_the_runtime_asked_for_does_not_read_is_a_row_with_its_reason(
    variant, tmp_path, monkeypatch, capsys
):
    path = runtimes.write(variant, "onnxruntime", tmp_path)
    packed.pack(path, out=tmp_path / "model.slim")
    code, out, _ = call(monkeypatch, capsys, path, "--runtime", "inductor", "--format", "json")
    assert code == 2, "nothing ran"
    (row,) = json.loads(out)["rows"]
    assert "inductor does not read .onnx files" in row["problem"]
    for word in ("model.xml", "model.slim"):
        if word == "model.xml":
            runtimes.write(variant, "openvino", tmp_path)
        (target,) = bench.targets(str(tmp_path / word), tmp_path / "unpacked", runtime="eager")
        assert "eager does not read" in target.problem
    (target,) = bench.targets(str(path), tmp_path, runtime="openvino")
    assert target.problem is None


def test_a_runtime_that_a_model_cannot_be_written_for_is_a_row_with_its_reason(tmp_path, monkeypatch):
    torch.save(network(), tmp_path / "net.pt")
    monkeypatch.setitem(sys.modules, "openvino", None)
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CXX", raising=False)
    found = bench.targets(str(tmp_path / "net.pt"), tmp_path, runtime="all", input="3x16x12")
    problems = {target.runtime: target.problem for target in found}
    assert list(problems) == list(runtimes.NAMES)
    assert "openvino is not installed" in problems["openvino"]
    for name in ("inductor", "inductor_unfrozen", "aotinductor"):
        assert "needs a C++ compiler" in problems[name]
    assert [name for name, why in problems.items() if why is None] == [
        "eager", "eager_channels_last", "onnxruntime"
    ]  # fmt: skip
    chosen = [target for target in found if target.runtime in ("onnxruntime", "openvino")]
    sound, broken = bench.compare(chosen, threads=[1], batches=[1], quick=True)
    assert sound.p50_ms > 0
    assert broken.problem == problems["openvino"]


class Tiny(nn.Module):
    """Goes through numbers so small that ONNX Runtime takes them for zero."""

    def forward(self, x):
        return (x * 1e-20 * 1e-20 * 1e20 * 1e20).mean((2, 3))


def test_a_runtime_that_answers_otherwise_than_the_model_is_a_row_that_says_so(tmp_path):
    path = runtimes.write(Variant(capture.capture(Tiny(), INPUT), INPUT), "eager", tmp_path)
    (target,) = bench.targets(str(path), tmp_path / "made", runtime="onnxruntime")
    assert "onnxruntime answers otherwise" in target.problem


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
