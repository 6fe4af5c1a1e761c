"""8-bit files of the runtimes' own quantisers: each loads, takes pixels, and answers like the network."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from slimcv import runtimes
from slimcv.data.normalisation import normalised
from slimcv.errors import NotApplicable
from slimcv.models import capture
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


@BOTH
def test_it_is_an_export_that_costs_accuracy(kind):
    assert kind.stage is Stage.EXPORT
    assert kind.quantizes
    assert not kind.lossless
