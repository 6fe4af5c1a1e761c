"""The step `export_openvino`: a file that answers like the network, at any batch size, or a rejection."""

from dataclasses import replace

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
from slimcv.steps.export_openvino import ExportOpenvino

INPUT = InputSpec(3, 12, 12)


@pytest.fixture
def variant():
    network = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.Hardswish(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4)
    )
    return Variant(capture.capture(network, INPUT), INPUT, details={"source": "a test"})


def test_the_step_exports_and_changes_nothing():
    assert ExportOpenvino.stage is Stage.EXPORT
    assert ExportOpenvino.lossless


def test_the_file_answers_like_the_network_at_any_batch_size(variant, tmp_path):
    exported = ExportOpenvino().apply(variant, Context(variant, None, tmp_path, threads=1, train_threads=1))
    path = exported.artifacts["openvino"]
    assert exported.runtime == "openvino"
    assert path.is_relative_to(tmp_path)
    assert path.with_suffix(".bin").is_file()
    found = exported.details["openvino"]
    bound = 1e-4 if found["precision"] == "fp32" else 5e-2
    assert found["max_abs_diff"] <= bound * found["scale"]
    assert exported.details["source"] == "a test"
    prepared = runtimes.prepare(path, "openvino", threads=1)
    for count in (1, 3):
        shape = (count, INPUT.height, INPUT.width, INPUT.channels)
        pixels = np.random.default_rng(count).integers(0, 256, shape, dtype=np.uint8)
        with torch.no_grad():
            expected = variant.model(torch.from_numpy(normalised(pixels, INPUT))).numpy()
        assert np.abs(prepared.predict(pixels) - expected).max() <= bound * np.abs(expected).max() + 1e-6


def test_another_networks_onnx_among_the_artifacts_is_found_out(variant, tmp_path):
    torch.manual_seed(1)
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4))
    other = Variant(capture.capture(network, INPUT), INPUT)
    stale = replace(variant, artifacts={"onnxruntime": runtimes.write(other, "onnxruntime", tmp_path)})
    context = Context(variant, None, tmp_path, threads=1, train_threads=1)
    with pytest.raises(Rejected, match="openvino answers otherwise"):
        ExportOpenvino(input_format="float-nchw").apply(stale, context)


@pytest.mark.parametrize("input_format", ["uint8-nhwc", "float-nchw"])
def test_both_exports_are_fed_alike_and_one_reads_the_other(variant, tmp_path, input_format):
    context = Context(variant, None, tmp_path, threads=1, train_threads=1)
    first = ExportOnnx(input_format=input_format).apply(variant, context)
    both = ExportOpenvino(input_format=input_format).apply(first, context)
    for runtime, path in both.artifacts.items():
        prepared = runtimes.prepare(path, runtime, threads=1)
        assert prepared.input_format == input_format
        assert runtimes.input_shape(path, runtime) == INPUT.shape
        assert both.details[runtime]["input_format"] == input_format


def test_a_file_that_is_fed_otherwise_than_the_onnx_is_written_anew(variant, tmp_path):
    context = Context(variant, None, tmp_path, threads=1, train_threads=1)
    first = ExportOnnx(input_format="float-nchw").apply(variant, context)
    both = ExportOpenvino().apply(first, context)
    assert runtimes.prepare(both.artifacts["openvino"], "openvino", threads=1).input_format == "uint8-nhwc"
