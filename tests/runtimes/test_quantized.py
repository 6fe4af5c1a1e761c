"""A folded INT8 graph runs in 8 bits in every runtime, and each says so."""

import numpy as np
import pytest
import torch
import torch.ao.quantization.fx._decomposed  # defines the operators of quantised graphs
from torch import nn

from slimcv import runtimes
from slimcv.measure import environment, macs, size
from slimcv.models import capture
from slimcv.runtimes import openvino as openvino_runtime
from slimcv.step import InputSpec, Variant

INPUT = InputSpec(3, 16, 16)
OPERATORS = torch.ops.quantized_decomposed


class Quantized(nn.Module):
    """A convolution on integers, then a linear on floats: what the quantisation step leaves of two layers.

    Weights stay within 7 bits, so that 16-bit sums on older CPUs do not saturate.
    """

    def __init__(self):
        super().__init__()
        random = torch.Generator().manual_seed(0)
        self.register_buffer(
            "folded", torch.randint(-63, 64, (16, 3, 3, 3), generator=random, dtype=torch.int8)
        )
        self.register_buffer("scales", torch.full((16,), 0.01))
        self.register_buffer("zeros", torch.zeros(16, dtype=torch.int64))
        self.bias = nn.Parameter(torch.zeros(16))
        self.linear = nn.Linear(16, 4)

    def forward(self, x):
        x = OPERATORS.quantize_per_tensor(x, 0.03, 128, 0, 255, torch.uint8)
        x = OPERATORS.dequantize_per_tensor(x, 0.03, 128, 0, 255, torch.uint8)
        weight = OPERATORS.dequantize_per_channel(
            self.folded, self.scales, self.zeros, 0, -128, 127, torch.int8
        )
        x = torch.relu(torch.conv2d(x, weight, self.bias, [1, 1], [1, 1]))
        return self.linear(x.mean((2, 3)))


@pytest.fixture(scope="module")
def variant():
    torch.manual_seed(0)
    return Variant(capture.capture(Quantized().eval(), INPUT), INPUT, precision="int8")


@pytest.fixture
def pixels():
    return np.random.default_rng(0).standard_normal((4, *INPUT.shape), dtype=np.float32)


@pytest.mark.parametrize("runtime", ["eager", "onnxruntime", "openvino"])
def test_the_outputs_are_those_of_the_quantised_graph(runtime, variant, pixels, tmp_path):
    prepared = runtimes.prepare(runtimes.write(variant, runtime, tmp_path), runtime, threads=1)
    with torch.no_grad():
        expected = variant.model(torch.from_numpy(pixels)).numpy()
    assert np.abs(prepared.predict(pixels) - expected).max() < 0.02 * np.abs(expected).max()
    floats = "bf16" if environment.has_bf16_instructions() else "fp32"
    assert prepared.precision == {"eager": "fp32", "onnxruntime": "int8", "openvino": floats}[runtime]


def test_openvino_tells_which_layers_ran_on_integers(variant, tmp_path):
    path = runtimes.write(variant, "openvino", tmp_path)
    found = openvino_runtime.executed_precisions(path, threads=1)
    assert found.get("u8", 0) + found.get("i8", 0) == 1
    assert sum(found.values()) == 2


def test_the_share_of_macs_on_integers_is_that_of_the_convolution(variant):
    convolution, linear = 16 * 3 * 9 * 256, 16 * 4
    assert macs.count(variant.model, INPUT) == convolution + linear
    assert macs.int8_share(variant.model, INPUT) == pytest.approx(convolution / (convolution + linear))


def test_folded_weights_count_as_parameters(variant):
    assert size.parameters(variant.model) == 16 * 3 * 9 + 16 + 16 * 4 + 4
