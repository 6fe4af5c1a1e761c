"""An 8-bit graph computed as it is written: what CPUs answer whose sums do not overflow, on any CPU."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.ao.quantization.fx._decomposed  # defines the operators of quantised graphs
from torch import nn

from slimcv import parity, runtimes
from slimcv.errors import Rejected
from slimcv.measure import environment
from slimcv.models import capture
from slimcv.step import Context, InputSpec, Variant

INPUT = InputSpec(3, 16, 16, mean=(0.0,) * 3, std=(1.0,) * 3)
OPERATORS = torch.ops.quantized_decomposed
BOTH = pytest.mark.parametrize("runtime", runtimes.EXACT)


class Overflowing(nn.Module):
    """Weights and maps near the ends of their ranges: sums of two products do not fit 16 bits."""

    def __init__(self):
        super().__init__()
        random = torch.Generator().manual_seed(0)
        for name, shape in (("first", (16, 3, 3, 3)), ("second", (4, 16, 3, 3))):
            integers = torch.randint(100, 128, shape, generator=random, dtype=torch.int8)
            self.register_buffer(name, integers)
            self.register_buffer(f"{name}_scales", torch.full((shape[0],), 1e-3))
            self.register_buffer(f"{name}_zeros", torch.zeros(shape[0], dtype=torch.int64))

    def layer(self, x, scale, name):
        x = OPERATORS.quantize_per_tensor(x, scale, 0, 0, 255, torch.uint8)
        x = OPERATORS.dequantize_per_tensor(x, scale, 0, 0, 255, torch.uint8)
        stored = (getattr(self, name + suffix) for suffix in ("", "_scales", "_zeros"))
        weight = OPERATORS.dequantize_per_channel(*stored, 0, -128, 127, torch.int8)
        return torch.relu(torch.conv2d(x, weight, None, [1, 1], [1, 1]))

    def forward(self, x):
        return self.layer(self.layer(x, 1 / 255, "first"), 0.012, "second").mean((2, 3))


@pytest.fixture(scope="module")
def variant():
    details = {"quantize_int8": {"computed_exactly": True}, "input_format": "uint8-nhwc"}
    return Variant(capture.capture(Overflowing().eval(), INPUT), INPUT, precision="int8", details=details)


@pytest.fixture(scope="module")
def pixels():
    return np.random.default_rng(0).integers(200, 256, (8, 16, 16, 3), dtype=np.uint8)


def error(variant, prepared, pixels):
    expected = parity.expected(variant, pixels)
    found = runtimes.answer(prepared, pixels, variant.input)
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))


@BOTH
def test_a_graph_is_computed_as_it_is_written(variant, pixels, tmp_path, runtime):
    path = runtimes.write(variant, runtime, tmp_path)
    assert error(variant, runtimes.prepare(path, runtime, threads=1, exact=True), pixels) < 2e-3
    kernels = error(variant, runtimes.prepare(path, runtime, threads=1), pixels)
    assert (kernels > parity.INT8_TOLERANCE) == environment.saturates("host")


@BOTH
def test_a_file_for_cpus_that_do_not_overflow_is_proved_on_one_that_does(variant, tmp_path, runtime):
    context = Context(variant, None, tmp_path, threads=1, train_threads=1)
    _, found = parity.export(variant, runtime, context=context, tolerance=1e-4)
    assert found["computed_exactly"]
    assert found["precision"] == "int8"
    assert found["relative_error"] < 2e-3


@BOTH
def test_a_wrong_file_is_refused_all_the_same(variant, tmp_path, runtime):
    other = replace(variant, model=capture.copy(variant.model))
    next(tensor for name, tensor in other.model.named_buffers() if name.endswith("second")).neg_()
    path = runtimes.write(variant, runtime, tmp_path)
    context = Context(variant, None, tmp_path, threads=1, train_threads=1)
    with pytest.raises(Rejected, match="answers otherwise"):
        parity.prove(other, path, runtime, context=context, tolerance=1e-4)


def test_overflow_here_alone_needs_weights_of_eight_bits_and_another_cpu():
    here = environment.saturates("host")
    for target in ("avx512_vnni", "avx512_bf16", "amx"):
        assert environment.integers_for(target, False).computed_exactly is here
        assert not environment.integers_for(target, True).computed_exactly
    for target in ("host", "avx2", "avx512"):
        assert not environment.integers_for(target, False).computed_exactly
