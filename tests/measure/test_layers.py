"""What each layer costs, in floats and in 8 bits."""

import torch
from torch import nn

from slimcv import quantization
from slimcv.measure import layers, macs, size
from slimcv.models import capture
from slimcv.step import InputSpec

INPUT = InputSpec(3, 16, 16)


def network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.ReLU(), nn.BatchNorm2d(8), nn.Flatten(), nn.Linear(8 * 196, 4)
    ).eval()


def test_all_layers_together_are_the_network():
    model = capture.capture(network(), INPUT)
    found = layers.costs(model, INPUT)
    assert [layer.name for layer in found] == ["0", "2", "4"]
    assert sum(layer.macs for layer in found) == macs.count(model, INPUT)
    assert sum(layer.parameters for layer in found) == size.parameters(model)
    assert [layer.bytes for layer in found] == [4 * layer.parameters for layer in found]


def test_weights_in_8_bits_take_a_byte_each():
    model = capture.capture(network(), INPUT)
    batches = torch.randn(16, 3, 16, 16).split(8)
    folded = quantization.calibrated(model, batches, input=INPUT, reduce_range=True).graph
    before = {layer.name: layer for layer in layers.costs(model, INPUT)}
    after = {layer.name: layer for layer in layers.costs(folded, INPUT)}
    for name in ("0", "4"):
        assert after[name].macs == before[name].macs
        assert after[name].parameters == before[name].parameters
        assert after[name].bytes < 0.4 * before[name].bytes


def test_a_shared_weight_counts_where_it_comes_first():
    shared = nn.Linear(8, 8)
    model = capture.capture(nn.Sequential(nn.Flatten(), shared, nn.ReLU(), shared).eval(), InputSpec(2, 2, 2))
    found = layers.costs(model, InputSpec(2, 2, 2))
    assert sum(layer.parameters for layer in found) == 72
    assert sum(layer.macs for layer in found) == 128


class Folded(nn.Module):
    """A weight that is an 8-bit parameter with one scale, read twice, and a map that is rounded."""

    def __init__(self):
        super().__init__()
        weight = torch.ones(3, 3, 1, 1, dtype=torch.int8)
        self.weight = nn.Parameter(weight, requires_grad=False)

    def forward(self, x):
        integers = torch.ops.quantized_decomposed
        full = (0.1, 0, -128, 127, torch.int8)
        weight = integers.dequantize_per_tensor(self.weight, *full)
        x = integers.dequantize_per_tensor(integers.quantize_per_tensor(x, *full), *full)
        return torch.conv2d(torch.conv2d(x, weight), weight).mean((2, 3))


def test_a_weight_in_8_bits_is_its_first_reader_s_not_its_rounding_s():
    model = capture.capture(Folded(), INPUT)
    first, second = layers.costs(model, INPUT)
    assert (first.name, first.parameters, first.bytes) == ("conv2d", 9, 9)
    assert (second.name, second.parameters, second.bytes) == ("conv2d_1", 0, 0)
    assert first.macs == second.macs == 9 * 256
