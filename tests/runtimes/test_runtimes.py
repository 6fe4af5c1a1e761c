"""Every runtime writes its file, loads it and gives the outputs of the graph it was made from."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import nn

from slimcv import runtimes
from slimcv.data.normalisation import normalised
from slimcv.errors import SlimcvError
from slimcv.models import capture
from slimcv.step import InputSpec, Variant

INPUT = InputSpec(3, 16, 16)


@pytest.fixture(scope="module")
def variant():
    torch.manual_seed(1)
    layers = (nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten())
    net = nn.Sequential(*layers, nn.Dropout(0.5), nn.Linear(8 * 8 * 8, 6)).eval()
    net[1].running_mean.uniform_(-1, 1)
    return Variant(capture.capture(net, INPUT), INPUT)


@pytest.fixture(scope="module")
def folder(tmp_path_factory, variant):
    folder = tmp_path_factory.mktemp("runtimes")
    for runtime in runtimes.NAMES:
        runtimes.write(variant, runtime, folder, name=runtime)
    return folder


SUFFIXES = dict.fromkeys(runtimes.NAMES, ".pt2") | {"onnxruntime": ".onnx", "openvino": ".xml"}


@pytest.mark.parametrize("runtime", runtimes.NAMES)
def test_outputs_are_those_of_the_graph_at_any_batch_size(runtime, variant, folder):
    prepared = runtimes.prepare(folder / (runtime + SUFFIXES[runtime]), runtime, threads=1)
    for count in (1, 3) if runtime in runtimes.COMPILED else (1, 3, 32):
        pixels = np.random.default_rng(0).standard_normal((count, *INPUT.shape), dtype=np.float32)
        with torch.no_grad():
            expected = variant.model(torch.from_numpy(pixels)).numpy()
        outputs = prepared.predict(pixels)
        assert outputs.shape == (count, 6)
        assert outputs.dtype == np.float32
        tolerance = {"fp32": 1e-4, "bf16": 2e-2}[prepared.precision]
        np.testing.assert_allclose(outputs, expected, atol=tolerance)
    assert prepared.runtime == runtime
    assert prepared.precision == "fp32" or runtime == "openvino"


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_a_file_that_is_fed_pixels_normalises_them_itself(runtime, tmp_path):
    """A network that gives back what it is fed tells what that was."""
    input = InputSpec(3, 8, 6, mean=(0.485, 0.456, 0.4), std=(0.229, 0.224, 0.3))
    echo = nn.Sequential(nn.Flatten())
    fed_pixels = Variant(capture.capture(echo, input), input, details={"input_format": runtimes.PIXELS})
    pixels = np.random.default_rng(0).integers(0, 256, (5, 8, 6, 3), dtype=np.uint8)
    prepared = runtimes.prepare(runtimes.write(fed_pixels, runtime, tmp_path), runtime, threads=1)
    assert prepared.input_format == runtimes.PIXELS
    expected = normalised(pixels, input).reshape(5, -1)
    found = runtimes.answer(prepared, pixels, input)
    if runtime == "onnxruntime":
        assert np.array_equal(found, expected), "bit for bit what training was fed"
    np.testing.assert_allclose(found, expected, atol=2e-2 if prepared.precision == "bf16" else 1e-6)


@pytest.mark.parametrize("runtime", runtimes.NAMES)
def test_without_being_asked_files_are_fed_normalised_planes(runtime, folder):
    prepared = runtimes.prepare(folder / (runtime + SUFFIXES[runtime]), runtime, threads=1)
    assert prepared.input_format == runtimes.PLANES


@pytest.mark.parametrize("runtime", ["eager", "onnxruntime", "openvino"])
def test_outputs_stay_as_they_are_when_the_model_is_called_again(runtime, folder):
    prepared = runtimes.prepare(folder / (runtime + SUFFIXES[runtime]), runtime, threads=1)
    first = prepared.predict(np.ones((1, *INPUT.shape), np.float32))
    kept = first.copy()
    prepared.predict(np.zeros((1, *INPUT.shape), np.float32))
    np.testing.assert_array_equal(first, kept)


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_a_runtime_that_is_not_torch_predicts_without_importing_torch(runtime, folder):
    code = f"""
import sys, numpy as np
from pathlib import Path
from slimcv import runtimes
path = Path({str(folder / (runtime + SUFFIXES[runtime]))!r})
runtimes.prepare(path, {runtime!r}, threads=1).predict(np.zeros((1, 3, 16, 16), np.float32))
runtimes.load_libraries({runtime!r}, threads=1)
print("torch" in sys.modules, "onnx" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]
    assert done.stderr == ""


def test_writing_says_nothing_on_stdout_or_stderr(tmp_path):
    code = f"""
import torch
from pathlib import Path
from torch import nn
from slimcv import runtimes
from slimcv.models import capture
from slimcv.step import InputSpec, Variant
input = InputSpec(3, 8, 8)
net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU6(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
variant = Variant(capture.capture(net, input), input)
for runtime in ("eager", "onnxruntime", "openvino"):
    runtimes.write(variant, runtime, Path({str(tmp_path)!r}))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("", "")
    assert sorted(file.name for file in tmp_path.iterdir()) == [
        "model.bin",
        "model.onnx",
        "model.pt2",
        "model.xml",
    ]


def test_importing_the_runtimes_imports_neither_torch_nor_a_runtime():
    code = (
        "import slimcv.runtimes, slimcv.measure.latency, sys; "
        "print(sorted(set(sys.modules) & {'torch', 'onnx', 'openvino', 'onnxruntime'}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_an_unknown_runtime_is_refused_with_the_nearest_name(tmp_path):
    with pytest.raises(SlimcvError, match="unknown runtime 'openvinno'") as caught:
        runtimes.prepare(_file(tmp_path, "x.xml"), "openvinno", threads=1)
    assert "openvino" in caught.value.hint


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(SlimcvError, match=r"absent\.onnx"):
        runtimes.prepare(tmp_path / "absent.onnx", "onnxruntime", threads=1)


@pytest.mark.parametrize(("runtime", "name"), [("onnxruntime", "bad.onnx"), ("openvino", "bad.xml")])
def test_a_damaged_file_is_refused_by_name(runtime, name, tmp_path):
    with pytest.raises(SlimcvError, match=name):
        runtimes.prepare(_file(tmp_path, name), runtime, threads=1)


def _file(folder, name):
    path = folder / name
    path.write_bytes(b"not a model")
    return path
