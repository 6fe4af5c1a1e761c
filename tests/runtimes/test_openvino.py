"""OpenVINO is imported without its telemetry, and its files hold the weights as they were."""

import os
import subprocess
import sys

import numpy as np
from torch import nn

from slimcv.models import capture
from slimcv.runtimes import onnxruntime as onnx_file
from slimcv.runtimes import openvino as runtime
from slimcv.step import InputSpec, Variant

INPUT = InputSpec(3, 8, 8)


def test_importing_openvino_reports_to_nobody_and_leaves_nothing_in_the_home_directory(tmp_path):
    code = """
import sys
from slimcv import runtimes
runtimes.load_libraries("openvino", threads=1)
runtimes.import_library("openvino")
print("openvino" in sys.modules, "openvino_telemetry" in sys.modules)
"""
    home = {**os.environ, "HOME": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=home)
    assert done.stdout.split() == ["True", "False"]
    assert list(tmp_path.iterdir()) == []


def exported(folder):
    """An `.onnx` of a small network, and the network."""
    net = nn.Sequential(nn.Conv2d(3, 64, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 8)).eval()
    variant = Variant(capture.capture(net, INPUT), INPUT)
    return onnx_file.write(variant, folder, name="source"), variant


def test_floats_that_were_proved_in_float32_are_computed_in_it_on_every_cpu(tmp_path, monkeypatch):
    _, variant = exported(tmp_path)
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
    path = runtime.write(variant, tmp_path)
    monkeypatch.delenv("ONEDNN_MAX_CPU_ISA")
    assert runtime.noted_precision(path) == "f32"
    assert runtime.prepare(path, threads=1).precision == "fp32"


def test_no_bfloat16_is_chosen_where_its_kernels_are_left_out(tmp_path):
    """The plug-in would choose it on a CPU that has it, and answer with what is no number."""
    source, _ = exported(tmp_path)
    path = tmp_path / "open.xml"
    runtime.convert(source, path, precision=None)
    pixels = np.random.default_rng(0).standard_normal((2, *INPUT.shape), dtype=np.float32)
    expected = onnx_file.prepare(source, threads=1).predict(pixels)
    np.save(tmp_path / "pixels.npy", pixels)
    code = f"""
import numpy as np
from pathlib import Path
from slimcv.runtimes import openvino
prepared = openvino.prepare(Path({str(path)!r}), threads=1)
np.save({str(tmp_path / "found.npy")!r}, prepared.predict(np.load({str(tmp_path / "pixels.npy")!r})))
print(prepared.precision)
"""
    capped = {**os.environ, "ONEDNN_MAX_CPU_ISA": "AVX2"}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=capped
    )
    assert done.stdout.strip() == "fp32"
    np.testing.assert_allclose(np.load(tmp_path / "found.npy"), expected, atol=1e-4)


def test_weights_keep_their_precision_and_an_existing_onnx_file_is_used(tmp_path):
    net = nn.Sequential(nn.Conv2d(3, 64, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 512)).eval()
    model = capture.capture(net, INPUT)
    path = onnx_file.write(Variant(model, INPUT), tmp_path, name="source")
    written = runtime.write(Variant(model, INPUT, artifacts={"onnxruntime": path}), tmp_path, name="net")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["net.bin", "net.xml", "source.onnx"]
    weights = sum(p.numel() for p in net.parameters())
    assert 4 * weights <= written.with_suffix(".bin").stat().st_size < 4.2 * weights
    pixels = np.ones((2, *INPUT.shape), np.float32)
    found = runtime.prepare(written, threads=1, inference_precision="f32").predict(pixels)
    np.testing.assert_allclose(found, onnx_file.prepare(path, threads=1).predict(pixels), atol=1e-5)
