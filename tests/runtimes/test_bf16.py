"""A network saved with the precision bf16 runs under autocast, on any CPU, and stays a float network."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from slimcv import runtimes
from slimcv.models import capture
from slimcv.step import InputSpec, Variant
from slimcv.steps.compile import Compile

INPUT = InputSpec(3, 8, 8)


@pytest.fixture
def variant():
    network = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)
    )
    return Variant(capture.capture(network, INPUT), INPUT)


def test_eager_pytorch_computes_it_in_bfloat16(variant, tmp_path):
    pixels = np.random.default_rng(0).standard_normal((2, 3, 8, 8), dtype=np.float32)
    with torch.no_grad():
        expected = variant.model(torch.from_numpy(pixels)).numpy()
    path = runtimes.write(replace(variant, precision="bf16"), "eager", tmp_path)
    prepared = runtimes.prepare(path, "eager", threads=1)
    found = prepared.predict(pixels)
    assert prepared.precision == "bf16"
    assert found.dtype == np.float32
    assert 0 < np.abs(found - expected).max() < 0.05


def test_other_networks_stay_in_float32(variant, tmp_path):
    path = runtimes.write(variant, "eager", tmp_path)
    assert runtimes.prepare(path, "eager", threads=1).precision == "fp32"


def test_compiling_to_bfloat16_is_not_lossless():
    assert Compile(precision="fp32").lossless
    assert not Compile(precision="bf16").lossless
