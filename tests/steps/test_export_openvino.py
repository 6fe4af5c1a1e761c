"""The step `export_openvino`: a file that answers like the network, at any batch size, or a rejection."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from slimcv import runtimes
from slimcv.errors import Rejected
from slimcv.models import capture
from slimcv.step import Context, InputSpec, Stage, Variant
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
        batch = np.random.default_rng(count).standard_normal((count, *INPUT.shape), dtype=np.float32)
        with torch.no_grad():
            expected = variant.model(torch.from_numpy(batch)).numpy()
        assert np.abs(prepared.predict(batch) - expected).max() <= bound * np.abs(expected).max() + 1e-6


def test_another_networks_onnx_among_the_artifacts_is_found_out(variant, tmp_path):
    torch.manual_seed(1)
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4))
    other = Variant(capture.capture(network, INPUT), INPUT)
    stale = replace(variant, artifacts={"onnxruntime": runtimes.write(other, "onnxruntime", tmp_path)})
    context = Context(variant, None, tmp_path, threads=1, train_threads=1)
    with pytest.raises(Rejected, match="openvino answers otherwise"):
        ExportOpenvino().apply(stale, context)
