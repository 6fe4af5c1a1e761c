"""Contenders are timed in turns, each in a process of its own, and what goes wrong in one is told by name."""

import os
import signal

import pytest
import torch
from torch import nn

from slimcv import runtimes
from slimcv.measure import latency
from slimcv.measure.latency import Contender, ContenderFailed, Timing
from slimcv.measure.process import WorkerProcess
from slimcv.models import capture
from slimcv.step import InputSpec, Variant

INPUT = InputSpec(3, 16, 16)


@pytest.fixture(scope="module")
def contenders(tmp_path_factory):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4))
    variant = Variant(capture.capture(net, INPUT), INPUT)
    folder = tmp_path_factory.mktemp("contenders")
    return {
        runtime: Contender(runtimes.write(variant, runtime, folder), runtime, 1, input=INPUT)
        for runtime in ("onnxruntime", "openvino", "eager")
    }


def _timing(rounds_ms):
    contender = Contender("x", "eager", 1, input=INPUT)
    samples = [sample for round_ms in rounds_ms for sample in round_ms]
    return Timing(contender, latency.summarise(samples), 1, tuple(map(tuple, rounds_ms)), 0.0, 0.0, "fp32")


def test_all_contenders_get_the_samples_asked_for(contenders):
    timings = latency.interleaved(
        {name: contenders[name] for name in ("onnxruntime", "openvino")},
        samples=20,
        throughput_batch=4,
        throughput_of={"openvino"},
    )
    assert list(timings) == ["onnxruntime", "openvino"]
    for timing in timings.values():
        assert timing.latency.n == len(timing.samples_ms) == 20
        assert 0 < timing.latency.p50 <= timing.latency.p90
        assert timing.latency.p99 is None
        assert timing.load_seconds > 0
        assert timing.memory is None
    assert timings["onnxruntime"].throughput_ips is None
    assert timings["openvino"].throughput_ips > 0


def test_memory_is_measured_above_that_of_the_runtime(contenders):
    timings = latency.interleaved({"one": contenders["onnxruntime"]}, samples=1, memory=True)
    memory = timings["one"].memory
    assert 0 < memory.baseline_bytes <= memory.predicting_peak_bytes
    assert timings["one"].peak_rss_bytes == memory.predicting_peak_bytes - memory.baseline_bytes


def test_eager_runs_in_a_worker_with_either_allocator(contenders):
    eager = contenders["eager"]
    both = {"tuned": eager, "default": Contender(eager.path, "eager", 1, input=INPUT, allocator="default")}
    timings = latency.interleaved(both, samples=5)
    assert [timing.precision for timing in timings.values()] == ["fp32", "fp32"]


def test_a_file_that_does_not_load_is_told_by_the_name_of_its_contender(contenders, tmp_path):
    bad = tmp_path / "bad.onnx"
    bad.write_bytes(b"nothing")
    with pytest.raises(ContenderFailed, match="candidate: ONNX Runtime does not load") as caught:
        latency.interleaved(
            {"before": contenders["onnxruntime"], "candidate": Contender(bad, "onnxruntime", 1, input=INPUT)}
        )
    assert caught.value.contender == "candidate"


def test_an_input_the_model_does_not_take_is_told_with_the_reason(contenders):
    wrong = Contender(contenders["onnxruntime"].path, "onnxruntime", 1, input=InputSpec(1, 16, 16))
    with pytest.raises(ContenderFailed, match="dimension"):
        latency.interleaved({"wrong": wrong})


def test_a_worker_that_is_killed_is_told_by_name_and_signal(contenders):
    with WorkerProcess("victim", contenders["onnxruntime"]) as worker:
        worker.ask("start", runtime="onnxruntime", threads=1, allocator="default")
        os.kill(worker.pid, signal.SIGKILL)
        with pytest.raises(ContenderFailed, match=r"victim.*SIGKILL"):
            worker.ask("load", path="x", shape=[1], seed=0)


def test_a_worker_that_does_not_answer_is_ended_and_told_by_name(contenders):
    with WorkerProcess("victim", contenders["onnxruntime"]) as worker:
        worker.ask("start", runtime="onnxruntime", threads=1, allocator="default")
        os.kill(worker.pid, signal.SIGSTOP)
        worker.patience_seconds = 0.01
        with pytest.raises(ContenderFailed, match=r"victim.*no answer to 'baseline' within 0.01 seconds"):
            worker.ask("baseline")


def test_patience_reaches_every_worker(contenders):
    with pytest.raises(ContenderFailed, match=r"one.*no answer to 'start'"):
        latency.interleaved({"one": contenders["onnxruntime"]}, patience_seconds=1e-6)
    with pytest.raises(ContenderFailed, match=r"one.*no answer to 'start'"):
        latency.peak_memory("one", contenders["onnxruntime"], patience_seconds=1e-6)


def test_no_worker_outlives_its_context(contenders):
    with WorkerProcess("short", contenders["onnxruntime"]) as worker:
        pid = worker.pid
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_a_clear_gain_is_faster_and_its_interval_holds_the_ratio():
    before, after = _timing([[2.0, 2.1]] * 10), _timing([[1.0, 1.1]] * 10)
    found = latency.ratio(before, after)
    assert found.low <= found.value <= found.high
    assert latency.faster(before, after)
    assert not latency.faster(after, before)


def test_a_gain_inside_the_spread_is_no_gain():
    noisy = [[1.0 + 0.1 * (round_number % 5), 1.3 - 0.1 * (round_number % 3)] for round_number in range(10)]
    slower = [[1.01 * sample for sample in round_ms] for round_ms in reversed(noisy)]
    assert not latency.faster(_timing(slower), _timing(noisy))


def test_drift_that_meets_both_alike_does_not_hide_a_gain():
    drift = [[1.0 + 0.3 * number] * 3 for number in range(10)]
    gained = [[0.9 * sample for sample in round_ms] for round_ms in drift]
    assert latency.faster(_timing(drift), _timing(gained))


def test_p99_needs_a_hundred_samples():
    assert latency.summarise([1.0] * 99).p99 is None
    assert latency.summarise([1.0] * 100).p99 == 1.0


def test_the_spread_is_half_the_interquartile_range_over_the_median():
    assert latency.summarise([1.0, 2.0, 3.0, 4.0, 5.0]).spread == pytest.approx((4.0 - 2.0) / 2 / 3.0)
