"""An 8-bit file made by the runtime's own quantiser: it loads, takes pixels, and answers like the network."""

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

pytest.importorskip("nncf")

INPUT = InputSpec(3, 16, 16)


def variant():
    torch.manual_seed(0)
    layers = nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Conv2d(16, 16, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1)
    return Variant(
        capture.capture(nn.Sequential(*layers, nn.Flatten(), nn.Linear(16, 4)).eval(), INPUT), INPUT
    )


@pytest.mark.parametrize("fed", ["uint8-nhwc", "float-nchw"])
def test_the_file_answers_like_the_network_and_runs_on_integers(data, tmp_path, fed):
    original = variant()
    context = Context(original, data, tmp_path, threads=1, train_threads=1)
    made = ExportNncf(calibration_images=20, input_format=fed).apply(original, context)
    path = made.artifacts["openvino:nncf"]
    prepared = runtimes.prepare(path, "openvino", threads=1)
    assert (prepared.precision, prepared.input_format, made.runtime) == ("int8", fed, "openvino")
    pixels = data.train.pixels(16, 16, 3)[:8]
    with torch.no_grad():
        expected = original.model(torch.from_numpy(normalised(pixels, INPUT))).numpy()
    found = runtimes.answer(prepared, pixels, INPUT)
    assert np.linalg.norm(found - expected) < 0.1 * np.linalg.norm(expected)
    names = {"model.xml", "model.bin"} if "openvino" == "openvino" else {"model.onnx"}
    assert {each.name for each in path.parent.iterdir()} == names, "nothing else is left"


def test_it_needs_pictures_and_a_network_in_floats(data, tmp_path):
    context = Context(variant(), data, tmp_path, threads=1, train_threads=1)
    with pytest.raises(NotApplicable, match="already"):
        ExportNncf().apply(replace(variant(), precision="int8"), context)
    with pytest.raises(NotApplicable, match="needs data"):
        ExportNncf().apply(variant(), replace(context, data=None))


def test_it_is_an_export_that_costs_accuracy():
    assert ExportNncf.stage is Stage.EXPORT
    assert ExportNncf.quantizes
    assert not ExportNncf.lossless
