"""What of all files is shipped."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from slimcv import data as datasets
from slimcv import runtimes
from slimcv.gate import Gate, judge
from slimcv.measure.variant import Answers, measurement
from slimcv.models import capture
from slimcv.quantization import by_onnxruntime
from slimcv.results import Measurement
from slimcv.run import Run
from slimcv.shipping import answering, contenders, judging, placing
from slimcv.shipping.evaluating import Evaluations
from slimcv.shipping.placing import one_a_place
from slimcv.step import Context, InputSpec, Variant

INPUT = InputSpec(3, 16, 16)


@pytest.fixture
def variant():
    layers = nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)
    return Variant(capture.capture(nn.Sequential(*layers).eval(), INPUT), INPUT)


def context(variant, folder):
    return Context(variant, None, folder, threads=1, train_threads=1)


def test_the_best_is_shipped_and_the_variants_own_graph_for_every_other_runtime():
    names = ["onnxruntime", "openvino", "openvino:nncf", "onnxruntime:qdq"]
    assert one_a_place(names, "openvino") == ["openvino", "onnxruntime"]
    assert one_a_place(names, "openvino:nncf") == ["openvino:nncf", "onnxruntime"]
    assert one_a_place(["openvino:nncf"], "openvino:nncf") == ["openvino:nncf"]


def test_no_other_file_takes_the_place_of_the_best():
    names = ["inductor:bf16", "onnxruntime", "eager_channels_last", "inductor"]
    assert one_a_place(names, "inductor:bf16") == ["inductor:bf16", "onnxruntime"]
    assert one_a_place(names, "onnxruntime") == ["onnxruntime", "eager_channels_last"]
    assert one_a_place(["openvino:fp32", "openvino", "onnxruntime"], "openvino:fp32") == [
        "openvino:fp32", "onnxruntime"
    ]  # fmt: skip


def test_what_is_forced_is_the_only_file_and_has_its_precision(variant, tmp_path):
    with Run.open(tmp_path / "out", identity={}) as run:
        surroundings = context(variant, run.workdir)

        def files(forced, of=variant):
            return contenders.files_of(of, surroundings, run, 1, forced=forced)

        assert list(files(None)) == ["eager"]
        assert list(files("eager_channels_last")) == ["eager_channels_last"]
        assert list(files("eager_channels_last:fp32")) == ["eager_channels_last"]
        (half,) = files("eager:bf16").values()
        assert runtimes.prepare(half, "eager", threads=1).precision == "bf16"
        exported = replace(variant, artifacts={"openvino": half, "openvino:nncf": half})
        assert list(files("openvino:nncf", exported)) == ["openvino:nncf"]
        assert list(files("openvino", exported)) == ["openvino", "openvino:nncf"]


def test_without_a_file_for_the_forced_runtime_eager_pytorch_stands_in_and_it_is_said_why(
    variant, tmp_path, monkeypatch
):
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CXX", raising=False)
    left_out = {"openvino": "rejected: an operator is unknown"}
    exported = replace(variant, artifacts={"openvino": tmp_path / "model.xml"})
    with Run.open(tmp_path / "out", identity={}) as run:
        surroundings = context(variant, run.workdir)

        def found(forced, of=variant):
            files, why = contenders.files_or_why_not(
                of, surroundings, run, 1, forced=forced, left_out=left_out
            )
            return [*files], why

        assert found(None) == (["eager"], None)
        assert found("eager") == (["eager"], None)
        assert found("openvino:nncf", exported) == (["openvino"], None)
        assert found("openvino") == (
            ["eager"],
            "there is no file for openvino: rejected: an operator is unknown",
        )
        files, why = found("inductor")
        assert files == ["eager"]
        assert why.startswith("there is no file for inductor: torch.compile needs a C++ compiler")


def test_what_serves_is_fed_as_its_own_file_says_whatever_was_exported_last(variant, tmp_path):
    """A recipe may export for each runtime otherwise; the manifest speaks of the file that serves."""
    written = {}
    for runtime, fed in (("onnxruntime", runtimes.PLANES), ("openvino", runtimes.PIXELS)):
        told = replace(variant, details={"input_format": fed})
        written[runtime] = runtimes.write(told, runtime, tmp_path / runtime)
        assert placing.fed(written[runtime], runtime) == fed
    assert placing.fed(tmp_path / "model.pt2", "eager") == runtimes.PLANES


def test_a_file_that_is_too_large_gives_way_to_a_slower_one_that_fits(tmp_path):
    files = {name: tmp_path / name for name in ("onnxruntime", "openvino:fp32", "openvino:nncf")}
    for path, count in zip(files.values(), (80, 300, 60), strict=True):
        path.write_bytes(bytes(count))
    accurate = {"", "fp32"}
    wrong = {"openvino:nncf": judging.INACCURATE}
    assert judging.refused(files, accurate) == wrong
    assert judging.refused(files, accurate, max_size=90) == {**wrong, "openvino:fp32": judging.TOO_LARGE}
    assert judging.refused(files, accurate, max_size=70) == wrong, "only what is inaccurate would fit"


def test_where_what_was_asked_for_has_no_file_the_bounds_stay_judged():
    found = Measurement(1, 0, 1, top1=95.0)
    verdict = judging.as_asked(
        judge(Gate(max_drop=1), candidate=found, original=found), "no file for openvino"
    )
    assert not verdict.accepted
    assert verdict.decided is True
    assert [(bound.name, bound.kept) for bound in verdict.judged] == [("max_drop", True)]


def test_the_fastest_that_is_right_itself_goes_before_a_faster_one_of_the_same_form(
    variant, write_noise, tmp_path
):
    """Of three pictures two show the class that one network always names, and the other never."""
    write_noise(tmp_path, size=16, each=20, classes=("one",))
    write_noise(tmp_path, size=16, each=10, classes=("two",))
    pictures = datasets.load(str(tmp_path / "pictures"), cache=tmp_path / "cache")
    other = capture.copy(variant.model)
    with torch.no_grad():
        for model, bias in ((variant.model, (9.0, -9.0)), (other, (-9.0, 9.0))):
            list(model.parameters())[-1].copy_(torch.tensor(bias))
    surroundings = replace(context(variant, tmp_path), data=pictures)
    right, wrong = "openvino", "onnxruntime"
    files = {
        name: runtimes.write(each, name, tmp_path / name)
        for name, each in ((right, variant), (wrong, replace(variant, model=other)))
    }
    said = answering.answers_of(files[right], right, variant, surroundings)
    evaluations = Evaluations(
        variant,
        None,
        context=surroundings,
        gate=Gate(max_drop=1),
        original=measurement(variant, runtime=right, size_bytes=1, threads=1, given=said),
        original_answers=said,
        macs=1,
    )
    assert evaluations.accurate_forms(files, meant=wrong) == {""}, "the other one of the form is asked too"
    assert evaluations.accurate_forms({wrong: files[wrong]}, meant=wrong) == set()
    assert evaluations.missing_before_the_first_right([wrong, right], files) == [wrong]
    assert evaluations.missing_before_the_first_right([right, wrong], files) == []
    assert evaluations.missing_before_the_first_right([wrong], files) == []


def test_floats_have_the_figures_of_the_network_before_its_integers(variant):
    quantized = replace(variant, precision="int8")
    evaluations = Evaluations(
        quantized,
        variant,
        context=context(variant, None),
        gate=Gate(),
        original=measurement(variant, runtime="eager", size_bytes=1, threads=1),
        original_answers=Answers(np.zeros(1, np.int64)),
        macs=1,
    )
    assert evaluations.variant_of("openvino:fp32") is variant
    assert evaluations.variant_of("openvino") is evaluations.variant_of("openvino:nncf") is quantized


def test_another_quantisers_file_has_the_share_of_integers_that_is_in_it(variant, tmp_path):
    said = Answers(np.zeros(1, np.int64))
    quantized = replace(variant, precision="int8", int8_mac_share=0.75)
    random = np.random.default_rng(0)
    pixels = random.integers(0, 256, (4, variant.input.height, variant.input.width, 3), dtype=np.uint8)
    foreign = by_onnxruntime.quantize(variant, pixels, tmp_path, reduce_range=False, takes_pixels=False)
    floats = runtimes.write(variant, "onnxruntime", tmp_path, name="floats")
    evaluations = Evaluations(
        quantized,
        variant,
        context=context(variant, None),
        gate=Gate(),
        original=measurement(variant, runtime="eager", size_bytes=1, threads=1),
        original_answers=said,
        macs=1,
    )
    shares = {
        name: evaluations.of(name, path).int8_mac_share
        for name, path in (
            ("onnxruntime", foreign),
            ("onnxruntime:qdq", foreign),
            ("onnxruntime:fp32", floats),
        )
    }
    assert shares == {"onnxruntime": 0.75, "onnxruntime:qdq": 1.0, "onnxruntime:fp32": None}


@pytest.mark.slow
def test_a_candidate_that_dies_in_the_final_measurement_is_told_with_its_reason(variant, tmp_path):
    with Run.open(tmp_path / "out", identity={}) as run:
        run.save_checkpoint(0, "original", variant)
        broken = tmp_path / "broken.onnx"
        broken.write_bytes(b"no model")
        files = {"eager": contenders.original_file(run), "onnxruntime": broken}
        timings, died = contenders.timed_together(
            context(variant, run.workdir), run, variant, files=files, unmodified={}, quick=True
        )
    assert "eager" in timings
    assert "onnxruntime" not in timings
    assert "ONNX Runtime does not load" in died["onnxruntime"]
