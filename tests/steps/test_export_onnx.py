"""The step `export_onnx`: a file that answers like the network, at any batch size, or a rejection."""

import numpy as np
import pytest
import torch
from torch import nn

from slimcv import runtimes
from slimcv.data.normalisation import normalised
from slimcv.errors import Rejected
from slimcv.models import capture
from slimcv.step import Context, InputSpec, Stage, Variant
from slimcv.steps.export_onnx import ExportOnnx

INPUT = InputSpec(3, 12, 12)


@pytest.fixture
def variant():
    network = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.Hardswish(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4)
    )
    return Variant(capture.capture(network, INPUT), INPUT, details={"source": "a test"})


def test_the_step_exports_and_changes_nothing():
    assert ExportOnnx.stage is Stage.EXPORT
    assert ExportOnnx.lossless


def test_the_file_answers_like_the_network_at_any_batch_size(variant, tmp_path):
    exported = ExportOnnx().apply(variant, Context(variant, None, tmp_path, threads=1, train_threads=1))
    path = exported.artifacts["onnxruntime"]
    assert exported.runtime == "onnxruntime"
    assert path.is_relative_to(tmp_path)
    assert exported.details["onnxruntime"]["max_abs_diff"] < 1e-4
    assert exported.details["source"] == "a test"
    prepared = runtimes.prepare(path, "onnxruntime", threads=1)
    for count in (1, 3):
        shape = (count, INPUT.height, INPUT.width, INPUT.channels)
        pixels = np.random.default_rng(count).integers(0, 256, shape, dtype=np.uint8)
        with torch.no_grad():
            expected = variant.model(torch.from_numpy(normalised(pixels, INPUT))).numpy()
        assert np.abs(prepared.predict(pixels) - expected).max() < 1e-5


def test_a_bound_it_cannot_meet_rejects_the_export(variant, tmp_path):
    context = Context(variant, None, tmp_path, threads=1, train_threads=1)
    with pytest.raises(Rejected, match="largest difference"):
        ExportOnnx(tolerance=1e-12).apply(variant, context)
