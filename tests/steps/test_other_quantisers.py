"""8-bit files of the runtimes' own quantisers: each loads, takes pixels, and answers like the network."""

import sys
from dataclasses import replace

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from slimcv import runtimes
from slimcv.data.normalisation import normalised
from slimcv.errors import NotApplicable, Rejected
from slimcv.models import capture
from slimcv.results import Record
from slimcv.runtimes import openvino
from slimcv.shipping.left_out import LeftOut
from slimcv.step import Context, InputSpec, Stage, Variant
from slimcv.steps.export_nncf import ExportNncf
from slimcv.steps.export_onnx_int8 import ExportOnnxInt8

INPUT = InputSpec(3, 16, 16)

BOTH = pytest.mark.parametrize("kind", [ExportNncf, ExportOnnxInt8])


def variant():
    torch.manual_seed(0)
    layers = nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Conv2d(16, 16, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1)
    return Variant(
        capture.capture(nn.Sequential(*layers, nn.Flatten(), nn.Linear(16, 4)).eval(), INPUT), INPUT
    )


@pytest.mark.parametrize("fed", ["uint8-nhwc", "float-nchw"])
@pytest.mark.parametrize(
    ("kind", "artifact", "runtime", "files"),
    [
        (ExportNncf, "openvino:nncf", "openvino", {"model.xml", "model.bin"}),
        (ExportOnnxInt8, "onnxruntime:qdq", "onnxruntime", {"model.onnx"}),
    ],
)
def test_the_file_answers_like_the_network_and_runs_on_integers(
    data, tmp_path, kind, artifact, runtime, files, fed
):
    if kind is ExportNncf:
        pytest.importorskip("nncf")
    original = variant()
    context = Context(original, data, tmp_path, threads=1, train_threads=1)
    made = kind(calibration_images=20, input_format=fed).apply(original, context)
    path = made.artifacts[artifact]
    prepared = runtimes.prepare(path, runtime, threads=1)
    assert (prepared.precision, prepared.input_format, made.runtime) == ("int8", fed, runtime)
    pixels = data.train.pixels(16, 16, 3)[:8]
    with torch.no_grad():
        expected = original.model(torch.from_numpy(normalised(pixels, INPUT))).numpy()
    found = runtimes.answer(prepared, pixels, INPUT)
    assert np.linalg.norm(found - expected) < 0.1 * np.linalg.norm(expected)
    for size in (1, 3):
        fewer = runtimes.answer(prepared, pixels[:size], INPUT)
        assert np.abs(fewer - found[:size]).max() < 1e-3 * np.abs(found).max(), "any batch size will do"
    assert {each.name for each in path.parent.iterdir()} == files, "nothing else is left"


@BOTH
def test_it_needs_pictures_and_a_network_in_floats(data, tmp_path, kind):
    context = Context(variant(), data, tmp_path, threads=1, train_threads=1)
    with pytest.raises(NotApplicable, match="already"):
        kind().apply(replace(variant(), precision="int8"), context)
    with pytest.raises(NotApplicable, match="needs data"):
        kind().apply(variant(), replace(context, data=None))


@pytest.mark.parametrize(
    ("kind", "library"),
    [(ExportNncf, "nncf"), (ExportNncf, "openvino"), (ExportOnnxInt8, "onnxruntime.quantization")],
)
def test_without_its_library_it_is_not_applicable(data, tmp_path, monkeypatch, kind, library):
    context = Context(variant(), data, tmp_path, threads=1, train_threads=1)
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(NotApplicable, match=f"needs {library.partition('.')[0]}") as caught:
        kind(calibration_images=2).apply(variant(), context)
    assert caught.value.hint.startswith("pip install")


def test_what_its_library_raises_rejects_the_step(data, tmp_path, monkeypatch):
    nncf = pytest.importorskip("nncf")
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    def raising(error):
        def call(*args, **kwargs):
            raise error

        return call

    context = Context(variant(), data, tmp_path, threads=1, train_threads=1)
    by_onnxruntime = "onnxruntime.quantization.quantize_static"
    for kind, place, error, reason in (
        (ExportNncf, "nncf.quantize", nncf.UnsupportedModelError("no such layer"), "no such layer"),
        (ExportNncf, "nncf.quantize", ValueError(""), "ValueError"),
        (ExportOnnxInt8, by_onnxruntime, state.NotImplemented("no such layer"), "no such layer"),
    ):
        monkeypatch.setattr(place, raising(error))
        with pytest.raises(Rejected, match=f"does not quantise this network: {reason}"):
            kind(calibration_images=2).apply(variant(), context)


def test_why_a_form_is_missing_stands_until_it_is_made():
    left_out = LeftOut()
    skipped = Record(5, 4, "export_nncf", "skipped", "NNCF's form needs nncf, which is not installed", 0.0)
    slower = Record(6, 5, "export_onnx_int8", "rejected", "no gain: 0.87× the speed before", 0.0)
    left_out.by_step(ExportNncf(), skipped)
    left_out.by_step(ExportOnnxInt8(), slower)
    assert left_out.reasons == {
        "openvino:nncf": "skipped: NNCF's form needs nncf, which is not installed",
        "onnxruntime:qdq": "rejected: no gain: 0.87× the speed before",
    }
    left_out.by_step(ExportOnnxInt8(), replace(slower, outcome="accepted"))
    assert list(left_out.reasons) == ["openvino:nncf"]
    both = replace(variant(), artifacts={"openvino": "model.xml", "onnxruntime:qdq": "model.onnx"})
    missed = Record(7, -1, "ship", "rejected", "gate missed", 0.0, details={"accuracy_met": False})
    left_out.by_gate(both, missed)
    assert left_out.reasons["onnxruntime:qdq"] == "its accuracy missed the gate on val/"


@BOTH
@pytest.mark.parametrize(("target", "bits"), [("avx2", 7), ("avx512", 7), ("avx512_vnni", 8), ("amx", 8)])
def test_weights_are_made_for_the_cpu_that_will_serve(data, tmp_path, kind, target, bits):
    if kind is ExportNncf:
        pytest.importorskip("nncf")
    context = Context(variant(), data, tmp_path, threads=1, train_threads=1)
    made = kind(calibration_images=8, target_isa=target).apply(variant(), context)
    assert made.details[kind.artifact]["reduce_range"] is (bits == 7)
    largest = max(map(_largest, _integers(made.artifacts[kind.artifact])))
    assert largest <= 64 if bits == 7 else largest >= 126


def _largest(weights):
    return int(np.abs(weights.astype(int)).max())


def _integers(path):
    """The weights of all layers as the file keeps them."""
    if path.suffix == ".onnx":
        stored = onnx.load(path).graph.initializer
        found = [onnx.numpy_helper.to_array(one) for one in stored if one.data_type == onnx.TensorProto.INT8]
        return [weights for weights in found if weights.ndim > 1]
    constants = openvino.import_library().Core().read_model(path).get_ops()
    found = [node.data for node in constants if node.get_type_name() == "Constant"]
    return [weights for weights in found if weights.dtype == np.int8 and weights.ndim > 1]


@BOTH
def test_it_is_an_export_that_costs_accuracy(kind):
    assert kind.stage is Stage.EXPORT
    assert kind.quantizes
    assert not kind.lossless
