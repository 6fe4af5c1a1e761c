"""Every way of running a variant stands in the table: timed, or with the reason why not."""

import math
import shutil
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from slimcv import bakeoff, parity, runtimes
from slimcv.bakeoff import candidates
from slimcv.measure import environment, latency
from slimcv.models import capture
from slimcv.step import Context, InputSpec, Variant

INPUT = InputSpec(3, 24, 24)


TORCH = ("eager", "eager_channels_last", "inductor", "inductor_unfrozen")
WITHOUT_TORCH = {
    f"{name}{form}": "rejected: answers otherwise" for name in TORCH for form in ("", ":fp32", ":bf16")
}
"""PyTorch's processes take seconds to start, which most of these tests can do without."""


@pytest.fixture(scope="module")
def variant():
    torch.manual_seed(0)
    layers = (nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(8 * 144, 4))
    return Variant(capture.capture(nn.Sequential(*layers).eval(), INPUT), INPUT)


@pytest.fixture(scope="module")
def files(variant, tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    return {name: runtimes.write(variant, name, folder) for name in ("onnxruntime", "openvino")}


def context(variant, folder):
    return Context(variant, None, folder, threads=1, train_threads=1)


def sized(width):
    layers = nn.Conv2d(3, width, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 4)
    return Variant(capture.capture(nn.Sequential(*layers).eval(), INPUT), INPUT)


@pytest.fixture
def without_compiler(monkeypatch):
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CXX", raising=False)


@pytest.mark.skipif(shutil.which("g++") is None, reason="needs a C++ compiler")
def test_all_runtimes_take_part_and_what_is_kept_is_no_slower_than_the_exports(variant, files, tmp_path):
    heat = bakeoff.heat(variant, files, context=context(variant, tmp_path), folder=tmp_path)
    assert {bakeoff.runtime_of(name) for name in {*heat.timings, *heat.problems}} == set(runtimes.NAMES)
    assert {"eager", "eager_channels_last", "inductor", "inductor_unfrozen"} <= set(heat.timings)
    assert set(files) <= set(heat.files), "the recipe's own exports stay in the race"
    p50 = {name: timing.latency.p50 for name, timing in heat.timings.items()}
    slowest = min(p50[name] for name in files)
    assert all(p50[name] < slowest for name in heat.files.keys() - files.keys() - {runtimes.NATIVE})
    with torch.no_grad():
        planes = torch.from_numpy(parity.normalisation.normalised(np.load(tmp_path / "pictures.npy"), INPUT))
        expected = variant.model(planes.contiguous()).numpy()
    for name, timing in heat.timings.items():
        if timing.outputs is None:
            assert f"in a first round of {bakeoff.FIRST_SAMPLES} calls" in heat.problems[name]
            continue
        tolerance = 5e-2 if timing.precision == "bf16" else 1e-3
        np.testing.assert_allclose(timing.outputs, expected, atol=tolerance * np.abs(expected).max())
        assert timing.latency.n == bakeoff.SAMPLES, name
    if not environment.has_bf16_instructions():
        assert heat.problems["inductor:bf16"] == candidates.NO_BF16
        assert heat.problems["inductor_unfrozen:bf16"] == candidates.NO_BF16


@pytest.mark.usefixtures("without_compiler")
def test_without_a_compiler_the_table_says_so_and_what_has_no_export_is_written(variant, files, tmp_path):
    alone = {"openvino": files["openvino"]}
    heat = bakeoff.heat(variant, alone, context=context(variant, tmp_path), folder=tmp_path)
    assert {"openvino", "eager", "eager_channels_last", "onnxruntime"} <= set(heat.timings)
    for name in ("inductor", "inductor_unfrozen", "aotinductor"):
        assert "needs a C++ compiler" in heat.problems[name]
    table = list(bakeoff.rows(heat.timings, {}, best="openvino", problems=heat.problems, refused={}))
    assert {row.name for row in table} >= set(runtimes.NAMES)
    written = runtimes.prepare(tmp_path / "onnxruntime" / "model.onnx", "onnxruntime", threads=1)
    assert written.input_format == runtimes.PIXELS, "as the recipes' own exports"


@pytest.mark.usefixtures("without_compiler")
def test_what_was_rejected_or_is_missing_stands_there_with_its_own_reason(
    variant, files, tmp_path, monkeypatch
):
    alone = {"onnxruntime": files["onnxruntime"]}
    left_out = {"openvino:nncf": "skipped: NNCF is not installed", **WITHOUT_TORCH}
    monkeypatch.setitem(sys.modules, "openvino", None)
    heat = bakeoff.heat(
        variant, alone, context=context(variant, tmp_path), folder=tmp_path, left_out=left_out
    )
    table = bakeoff.rows(heat.timings, {}, best="onnxruntime", problems=heat.problems, refused={})
    outcomes = {row.name: row.outcome for row in table}
    assert left_out.items() <= outcomes.items()
    assert outcomes["openvino"] == "openvino is not installed"
    assert outcomes["onnxruntime"] == "served"


@pytest.mark.usefixtures("without_compiler")
def test_beside_a_quantised_variant_there_are_the_floats_it_was_made_from(variant, files, tmp_path):
    quantized = replace(variant, precision="int8")
    more = candidates.written(quantized, files, tmp_path, in_floats=variant)
    assert {"openvino:fp32", "onnxruntime:fp32", "eager:fp32", "eager_channels_last:fp32"} <= set(more.files)
    assert "needs a C++ compiler" in more.problems["inductor:fp32"]
    assert more.problems["eager"] == candidates.NO_INT8
    prepared = runtimes.prepare(more.files["openvino:fp32"], "openvino", threads=1)
    assert (prepared.precision, prepared.input_format) == ("fp32", runtimes.PIXELS)
    if not environment.has_bf16_instructions():
        assert more.problems["openvino:bf16"] == candidates.NO_BF16
    assert not any(bakeoff.form_of(name) for name in candidates.written(quantized, files, tmp_path).files)


@pytest.mark.usefixtures("without_compiler")
def test_what_is_to_be_lossless_is_held_to_that_and_never_computed_in_bfloat16(
    variant, files, tmp_path, monkeypatch
):
    with monkeypatch.context() as patched:
        patched.setattr(environment, "has_bf16_instructions", lambda: True)
        more = candidates.written(variant, files, tmp_path / "lossless", lossless=True)
        assert not any(bakeoff.form_of(name) for name in more.files)
        assert more.problems["eager:bf16"] == candidates.LOSSLESS
        assert "eager:bf16" in candidates.written(variant, files, tmp_path / "else").files
    monkeypatch.setattr(bakeoff, "HOPELESS", math.inf)
    moved = capture.copy(variant.model)
    with torch.no_grad():
        for parameter in moved.parameters():
            parameter.mul_(1 + 2e-4)
    folder = tmp_path / "moved"
    runtimes.write(replace(variant, model=moved), "eager", folder)  # Where the heat finds it made.
    heat = bakeoff.heat(variant, files, context=context(variant, folder), folder=folder, lossless=True)
    assert "answers otherwise" in heat.problems["eager"]
    expected = parity.expected(variant, np.load(folder / "pictures.npy"))
    difference = np.abs(heat.timings["eager"].outputs - expected).max() / np.abs(expected).max()
    assert parity.LOSSLESS < difference < bakeoff.TOLERANCE, "which what is not lossless may differ by"


class Picky(nn.Module):
    """Looks up a row that is not there for what has less contrast than the noise that calls are timed on."""

    def __init__(self):
        super().__init__()
        self.rows = nn.Embedding(1, 4)

    def forward(self, x):
        contrast = (x - x.mean((1, 2, 3), keepdim=True)).abs().mean((1, 2, 3))
        return self.rows((contrast < 0.7).long() * 9)


@pytest.mark.usefixtures("without_compiler")
def test_a_candidate_that_dies_at_the_pictures_is_a_row_with_its_reason(variant, files, tmp_path):
    picky = Variant(capture.capture(Picky().eval(), INPUT), INPUT)
    alone = {"openvino": files["openvino"]}
    heat = bakeoff.heat(
        picky, alone, context=context(picky, tmp_path), folder=tmp_path, left_out=WITHOUT_TORCH
    )
    assert heat.timings["onnxruntime"].latency.n == bakeoff.FIRST_SAMPLES
    assert "ONNX Runtime does not run the model" in heat.problems["onnxruntime"]
    assert list(heat.files) == ["openvino"]
    table = bakeoff.rows(heat.timings, {}, best="openvino", problems=heat.problems, refused={})
    assert "ONNX Runtime does not run the model" in {row.name: row.outcome for row in table}["onnxruntime"]


@pytest.mark.usefixtures("without_compiler")
def test_floats_that_are_faster_than_the_integers_take_part_in_the_final_measurement(tmp_path):
    """The export is that of a network many times as large."""
    small, large = sized(4), sized(512)
    slow = {"openvino": runtimes.write(large, "openvino", tmp_path / "large")}
    quantized = replace(small, precision="int8", details={"input_format": runtimes.PLANES})
    heat = bakeoff.heat(quantized, slow, context=context(small, tmp_path), folder=tmp_path, in_floats=small)
    assert {"openvino:fp32", "onnxruntime:fp32"} <= set(heat.files)
    assert heat.timings["openvino:fp32"].latency.n == bakeoff.SAMPLES


@pytest.mark.usefixtures("without_compiler")
def test_what_is_far_behind_is_out_after_a_few_calls(tmp_path):
    """Floats of a network many times as large as the export."""
    small, large = sized(4), sized(512)
    fast = {"openvino": runtimes.write(small, "openvino", tmp_path / "small")}
    quantized = replace(small, precision="int8")
    heat = bakeoff.heat(quantized, fast, context=context(small, tmp_path), folder=tmp_path, in_floats=large)
    for name in ("openvino:fp32", "eager:fp32"):
        assert heat.timings[name].latency.n == bakeoff.FIRST_SAMPLES
        assert heat.problems[name].endswith("× the time of openvino in a first round of 6 calls")
    assert "openvino" in heat.files
    assert not any(bakeoff.form_of(name) == "fp32" for name in heat.files)


@pytest.mark.usefixtures("without_compiler")
def test_what_answers_otherwise_is_out_however_fast_it_is(variant, tmp_path):
    """The floats that the quantised variant is said to come from are another network's."""
    other = replace(variant, model=capture.copy(variant.model))
    with torch.no_grad():
        next(iter(other.model.parameters())).mul_(2)
    heat = bakeoff.Heat(timings={"eager": timing(1.0)})
    pixels = parity.pictures(variant, context(variant, tmp_path))
    questions = bakeoff._Questions(pixels, tmp_path / "pictures.npy", bakeoff.TOLERANCE)
    answers = parity.expected(other, pixels)
    heat.timings["eager"] = replace(heat.timings["eager"], outputs=answers)
    bakeoff._judge_answers(heat, "eager", other, questions)
    assert heat.problems == {}
    bakeoff._judge_answers(heat, "eager", variant, questions)
    assert "answers otherwise" in heat.problems["eager"]


def timing(call_ms, *, precision="fp32"):
    rounds = tuple((call_ms, call_ms) for _ in range(10))
    contender = latency.Contender("model.onnx", "onnxruntime", 1, INPUT)
    figures = latency.summarise([sample for each in rounds for sample in each])
    return latency.Timing(contender, figures, 1, rounds, 0.0, 0.0, precision)


def test_rows_say_what_became_of_each_the_fastest_first():
    ran = {"openvino": timing(2.0), "aotinductor": timing(1.0), "eager": timing(8.0), "inductor": timing(3.0)}
    problems = {"eager_channels_last": "died", "inductor": "answers otherwise"}
    refused = {"aotinductor": "machine code"}
    final = {"openvino": timing(2.0), "aotinductor": timing(1.5)}
    table = list(bakeoff.rows(ran, final, best="openvino", problems=problems, refused=refused))
    assert [(row.name, row.p50_ms, row.outcome) for row in table] == [
        ("aotinductor", 1.5, "machine code (0.750× the time of openvino)"),
        ("openvino", 2.0, "served"),
        ("inductor", 3.0, "answers otherwise"),
        ("eager", 8.0, "4.00× the time of openvino"),
        ("eager_channels_last", None, "died"),
    ]


def test_floats_are_compiled_only_where_another_runtime_with_them_is_in_the_race(variant):
    """The export is in 8 bits; the first round found the floats of the same network in two runtimes."""
    path = "model.pt2"

    def problems(floats_ms):
        first = {"openvino": timing(1.0), "openvino:fp32": timing(floats_ms), "onnxruntime:fp32": timing(3.0)}
        names = ("inductor", "inductor:fp32", "openvino:fp32", "onnxruntime:fp32")
        variants = dict.fromkeys(names, variant) | {"inductor": replace(variant, precision="int8")}
        more = candidates.Candidates(dict.fromkeys(names, path), variants)
        heat = bakeoff.Heat()
        bakeoff._drop_the_hopeless(heat, {"openvino": path}, more, first)
        return heat.problems

    behind = "3.00× the time of openvino in a first round of 6 calls"
    hopeless = "not compiled: with these floats the fastest runtime takes 2.00× the time of openvino"
    assert problems(1.4) == {"onnxruntime:fp32": behind}
    assert problems(2.0) == {
        "onnxruntime:fp32": behind,
        "openvino:fp32": behind.replace("3.00", "2.00"),
        "inductor:fp32": hopeless,
    }


def compiled_after(call_ms, variant, tmp_path):
    """What the heat makes of machine code where Inductor took `call_ms` and the export 1 ms."""
    heat = bakeoff.Heat(timings={"inductor": timing(call_ms), "openvino": timing(1.0)})
    questions = bakeoff._Questions(np.zeros((0,)), tmp_path / "pictures.npy", bakeoff.TOLERANCE)
    rival = {"openvino": tmp_path / "model.xml"}
    bakeoff._try_machine_code(heat, variant, rival, context=context(variant, tmp_path), questions=questions)
    return heat.problems["aotinductor"]


@pytest.mark.usefixtures("without_compiler")
def test_machine_code_is_compiled_only_where_inductor_is_in_the_race(variant, tmp_path):
    behind = compiled_after(2.0, variant, tmp_path)
    assert behind == "not compiled: inductor, which makes the same kernels, takes 2.00× the time of openvino"
    assert "needs a C++ compiler" in compiled_after(1.2, variant, tmp_path)
