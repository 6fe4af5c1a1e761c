"""Compiled networks answer batches of any size with few programs."""

import shutil

import numpy as np
import pytest
import torch
from torch import nn
from torch._dynamo.utils import counters

from slimcv import runtimes
from slimcv.models import capture
from slimcv.step import InputSpec, Variant

INPUT = InputSpec(3, 4, 4)

pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="needs a C++ compiler")


@pytest.fixture
def variant():
    return Variant(capture.capture(nn.Sequential(nn.Flatten(), nn.Linear(48, 2), nn.ReLU()), INPUT), INPUT)


@pytest.fixture
def prepared(variant, tmp_path):
    return runtimes.prepare(runtimes.write(variant, "inductor", tmp_path), "inductor", threads=1)


def programs_for(prepared, variant, sizes):
    """How many programs were compiled after each batch, whose outputs must be those of the network."""
    torch._dynamo.reset()
    counters.clear()
    found = []
    for size in sizes:
        pixels = np.random.default_rng(size).standard_normal((size, *INPUT.shape), dtype=np.float32)
        with torch.no_grad():
            expected = variant.model(torch.from_numpy(pixels)).numpy()
        np.testing.assert_allclose(prepared.predict(pixels), expected, atol=1e-4)
        found.append(counters["stats"]["unique_graphs"])
    return found


def test_one_channel_that_was_moved_to_the_front_is_compiled_once(tmp_path):
    """Its strides are others than those of an array that was made as planes."""
    gray = InputSpec(1, 4, 4, mean=(0.5,), std=(0.25,))
    network = nn.Sequential(nn.Flatten(), nn.Linear(16, 2), nn.ReLU())
    path = runtimes.write(Variant(capture.capture(network, gray), gray), "inductor", tmp_path)
    prepared = runtimes.prepare(path, "inductor", threads=1)
    torch._dynamo.reset()
    counters.clear()
    prepared.predict(np.zeros((4, 1, 4, 4), np.float32))
    for _ in range(2):
        runtimes.answer(prepared, np.zeros((4, 4, 4, 1), np.uint8), gray)
    assert counters["stats"]["unique_graphs"] == 1


@pytest.mark.slow
def test_ten_sizes_that_grow_are_answered(prepared, variant):
    """PyTorch by itself refuses the ninth program."""
    sizes = (1, 2, 3, 5, 9, 17, 33, 65, 129, 257)
    assert programs_for(prepared, variant, (*sizes, 300, 100, 6)) == [*range(1, 11), 10, 10, 10]


def test_one_picture_and_a_large_batch_are_computed_as_they_are_and_others_filled_up(prepared, variant):
    assert programs_for(prepared, variant, (8, 3, 1, 7, 2, 1)) == [1, 1, 2, 2, 2, 2]
    assert {shape[0] for shape in prepared._compiled_for} == {8, 1}
    prepared.predict(np.zeros((20, *INPUT.shape), np.float32))
    assert {shape[0] for shape in prepared._compiled_for} == {8, 1, 20}
