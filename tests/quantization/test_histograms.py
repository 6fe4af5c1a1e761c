"""Ranges narrowed by histograms: outliers are clipped where that pays, and nothing else changes."""

import pytest
import torch
from torch import nn

from slimcv import quantization
from slimcv.models import capture
from slimcv.step import InputSpec

INPUT = InputSpec(3, 32, 32)


def pictures(seed, count=32):
    """Noise in which one value of every eight pictures is ten times as large as all others."""
    x = torch.randn(count, *INPUT.shape, generator=torch.Generator().manual_seed(seed))
    x[::8, 0, 0, 0] = 40
    return x


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    layers = nn.Conv2d(3, 8, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(1800, 4)
    return capture.capture(nn.Sequential(*layers).eval(), INPUT)


@pytest.fixture(scope="module")
def made(model):
    return quantization.calibrated(
        model, pictures(1).split(8), input=INPUT, reduce_range=True, histograms=True
    )


def scales(graph):
    """Scale of every rounded map by the node it rounds."""
    nodes = graph.graph.find_nodes(
        op="call_function", target=torch.ops.quantized_decomposed.quantize_per_tensor.default
    )
    assert all(node.args[1:3] == user.args[1:3] for node in nodes for user in node.users)
    return {node.args[0].name: node.args[1] for node in nodes}


def test_a_percentile_leaves_the_rarest_values_out(made):
    wide, narrow = scales(made.with_ranges("extremes")), scales(made.with_ranges("percentile"))
    assert wide.keys() == narrow.keys()
    fed = next(iter(wide))
    assert narrow[fed] < wide[fed] / 4


def test_the_range_of_least_squared_error_moves_the_input_least(model):
    random = torch.Generator().manual_seed(2)
    spread = torch.empty(32, *INPUT.shape).exponential_(generator=random)
    made = quantization.calibrated(model, [spread**3], input=INPUT, reduce_range=True, histograms=True)
    x = (spread**3).flatten()
    errors = {}
    for ranges in ("extremes", "histogram", "percentile"):
        nodes = made.with_ranges(ranges).graph.nodes
        node = next(node for node in nodes if "quantize_per_tensor" in str(node.target))
        rounded = torch.fake_quantize_per_tensor_affine(x, node.args[1], node.args[2], 0, 255)
        errors[ranges] = float((rounded - x).square().mean())
    assert min(errors, key=errors.get) == "histogram"


def test_histograms_leave_the_ranges_by_extremes_as_they_are(model, made):
    plain = quantization.calibrated(model, pictures(1).split(8), input=INPUT, reduce_range=True)
    assert scales(plain.graph) == scales(made.graph) == scales(made.with_ranges("extremes"))
    assert plain.narrowed == {}


def test_other_ranges_and_biases_are_those_of_a_copy(made):
    before = {name: tensor.clone() for name, tensor in made.graph.state_dict().items()}
    code = made.graph.code
    made.corrected(made.with_ranges("histogram"))
    assert made.graph.code == code
    assert all(torch.equal(tensor, before[name]) for name, tensor in made.graph.state_dict().items())
