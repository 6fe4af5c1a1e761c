"""Every way of running a variant stands in the table: timed, or with the reason why not."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from slimcv import bakeoff, runtimes
from slimcv.measure import environment, latency
from slimcv.models import capture
from slimcv.step import Context, InputSpec, Variant

INPUT = InputSpec(3, 24, 24)


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


@pytest.mark.skipif(shutil.which("g++") is None, reason="needs a C++ compiler")
def test_all_runtimes_take_part_and_what_is_kept_is_no_slower_than_the_exports(variant, files, tmp_path):
    heat = bakeoff.heat(variant, files, context=context(variant, tmp_path), folder=tmp_path)
    assert {bakeoff.runtime_of(name) for name in heat.timings} == set(runtimes.NAMES)
    assert set(files) <= set(heat.files), "the recipe's own exports stay in the race"
    p50 = {name: timing.latency.p50 for name, timing in heat.timings.items()}
    slowest = min(p50[name] for name in files)
    assert all(p50[name] < slowest for name in heat.files.keys() - files.keys())
    with torch.no_grad():
        pixels = np.load(tmp_path / "pictures.npy")
        planes = torch.from_numpy(bakeoff.parity.normalisation.normalised(pixels, INPUT))
        expected = variant.model(planes.contiguous()).numpy()
    for name, timing in heat.timings.items():
        tolerance = 5e-2 if timing.precision == "bf16" else 1e-3
        np.testing.assert_allclose(timing.outputs, expected, atol=tolerance * np.abs(expected).max())
        assert timing.latency.n == bakeoff.SAMPLES, name
    if not environment.has_bf16_instructions():
        assert heat.problems["inductor:bf16"] == bakeoff.NO_BF16


def test_without_a_compiler_or_an_export_the_table_says_so(variant, files, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CXX", raising=False)
    alone = {"openvino": files["openvino"]}
    heat = bakeoff.heat(variant, alone, context=context(variant, tmp_path), folder=tmp_path)
    assert {"openvino", "eager", "eager_channels_last"} <= set(heat.timings)
    assert heat.problems["onnxruntime"] == bakeoff.NO_FILE
    for name in ("inductor", "inductor_unfrozen", "aotinductor"):
        assert "needs a C++ compiler" in heat.problems[name]
    table = list(bakeoff.rows(heat, heat.timings, best="openvino", refused={}))
    assert {row.name for row in table} >= set(runtimes.NAMES)


def test_what_answers_otherwise_is_out_however_fast_it_is(variant, files, tmp_path, monkeypatch):
    """The checkpoint that PyTorch's runtimes read is another network's."""
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CXX", raising=False)
    other = replace(variant, model=capture.copy(variant.model))
    with torch.no_grad():
        next(iter(other.model.parameters())).mul_(2)
    checkpoint = runtimes.write(other, "eager", tmp_path / "other")
    more = {"eager": checkpoint}
    monkeypatch.setattr(bakeoff, "_written", lambda *_: (more, {}))
    heat = bakeoff.heat(variant, files, context=context(variant, tmp_path), folder=tmp_path)
    assert "answers otherwise" in heat.problems["eager"]
    assert "eager" not in heat.files


def timing(call_ms, *, precision="fp32"):
    rounds = tuple((call_ms, call_ms) for _ in range(10))
    contender = latency.Contender("model.onnx", "onnxruntime", 1, INPUT)
    figures = latency.summarise([sample for each in rounds for sample in each])
    return latency.Timing(contender, figures, 1, rounds, 0.0, 0.0, precision)


def test_rows_say_what_became_of_each_the_fastest_first():
    ran = {"openvino": timing(2.0), "aotinductor": timing(1.0), "eager": timing(8.0), "inductor": timing(3.0)}
    heat = bakeoff.Heat({}, ran, {"eager_channels_last": "died", "inductor": "answers otherwise"})
    refused = {"aotinductor": "machine code"}
    final = {"openvino": timing(2.0), "aotinductor": timing(1.5)}
    table = list(bakeoff.rows(heat, final, best="openvino", refused=refused))
    assert [(row.name, row.p50_ms, row.outcome) for row in table] == [
        ("aotinductor", 1.5, "machine code (0.750× the time of openvino)"),
        ("openvino", 2.0, "served"),
        ("inductor", 3.0, "answers otherwise"),
        ("eager", 8.0, "4.00× the time of openvino"),
        ("eager_channels_last", None, "died"),
    ]
