"""Scales and biases with few bits of mantissa: near what they were, and far fewer bytes when packed."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from slimcv import quantization
from slimcv.models import capture
from slimcv.packed import choosing
from slimcv.quantization import awareness, weights
from slimcv.quantization.graph import REDUCED
from slimcv.quantization.mantissa import WHOLE, shortened
from slimcv.step import InputSpec

INPUT = InputSpec(3, 16, 16)


def bits_of(values):
    """The most bits of mantissa that any of the values has."""
    raw = int(np.bitwise_or.reduce(values.detach().contiguous().numpy().view(np.uint32).ravel()))
    mantissa = raw & ((1 << WHOLE) - 1)
    return 0 if not mantissa else WHOLE - ((mantissa & -mantissa).bit_length() - 1)


def pictures(seed):
    return torch.randn(32, *INPUT.shape, generator=torch.Generator().manual_seed(seed))


def network():
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 64, 3, bias=False), nn.ReLU(), nn.Conv2d(64, 64, 3, groups=64), nn.ReLU()]
    layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 5)]
    return capture.capture(nn.Sequential(*layers).eval(), INPUT)


def quantized(bits, model=None):
    batches = pictures(1).split(8)
    found = quantization.calibrated(
        model or network(), batches, input=INPUT, reduce_range=True, mantissa_bits=bits
    )
    return found.corrected(found.graph)


def floats(model):
    """Scales and biases by name."""
    return {name: t for name, t in model.state_dict().items() if name.endswith(("_scale", "bias"))}


@pytest.mark.parametrize("bits", [1, 7, 12, 22, 23])
def test_a_number_goes_to_the_nearest_that_has_so_many_bits(bits):
    values = torch.randn(1000, generator=torch.Generator().manual_seed(0)) * 10.0 ** torch.arange(1000).sub(
        500
    ).div(25)
    found = shortened(values, bits)
    assert bits_of(found) <= bits
    assert ((found - values).abs() <= values.abs() * 2.0 ** -(bits + 1)).all()
    assert torch.equal(shortened(found, bits), found)


def test_seven_bits_are_bfloat16_and_what_is_no_number_stays():
    values = torch.tensor([1.00390625, 1.01171875, -3.1415927, 0.0, -0.0, torch.inf, -torch.inf, torch.nan])
    expected = values.to(torch.bfloat16).float()
    assert torch.equal(shortened(values, 7).nan_to_num(nan=7.0), expected.nan_to_num(nan=7.0))


@pytest.mark.parametrize("bits", [7, 10])
def test_an_int8_graph_has_scales_and_biases_of_so_many_bits_and_hardly_other_answers(bits):
    plain, short = quantized(None), quantized(bits)
    names = floats(plain).keys()
    assert names == floats(short).keys()
    assert {name for name in names if name.endswith("_scale")} == {"0.weight_scale", "2.weight_scale"} | {
        "6.weight_scale"
    }
    for name, tensor in floats(short).items():
        assert bits_of(tensor) <= bits < bits_of(floats(plain)[name]), name
        if name.endswith("_scale"):
            assert (tensor >= floats(plain)[name]).all(), name
            assert (tensor <= floats(plain)[name] * (1 + 2.0**-bits)).all(), name
    integers = [tensor.int() for tensor in short.state_dict().values() if tensor.dtype == torch.int8]
    assert all(REDUCED[0] <= int(each.min()) and int(each.max()) <= REDUCED[1] for each in integers)
    fresh = pictures(2)
    with torch.no_grad():
        exact, found, before = (model(fresh) for model in (network(), short, plain))
    assert (found - exact).norm() < 1.5 * (before - exact).norm() + 0.002 * exact.norm()


def test_the_integers_are_rounded_at_the_scales_that_are_written():
    model = network()
    short, weight = quantized(3, model), model.get_submodule("0").weight
    scale = short.state_dict()["0.weight_scale"].view(-1, 1, 1, 1)
    nearest = (weight / scale).round().clamp(*REDUCED)
    assert (short.state_dict()["0.weight"] == nearest).float().mean() > 0.999


def test_training_leaves_biases_of_so_many_bits():
    given = quantized(7)
    trained = awareness.trainable(given)
    optimizer = torch.optim.SGD(trained.parameters(), 0.05)
    for _ in range(3):
        optimizer.zero_grad()
        functional.cross_entropy(trained(pictures(3)), torch.arange(32) % 5).backward()
        optimizer.step()
    assert any(bits_of(each) > 7 for each in floats(trained).values())
    done = awareness.stored(trained, given, mantissa_bits=7)
    assert all(bits_of(each) <= 7 for each in floats(done).values())
    assert not torch.equal(floats(done)["6.bias"], floats(given)["6.bias"])


@pytest.mark.parametrize("per_channel", [True, False])
def test_weights_alone_in_8_bits_too(per_channel):
    model, errors = weights.quantize(network(), bits=8, per_channel=per_channel, mantissa_bits=7)
    _, before = weights.quantize(network(), bits=8, per_channel=per_channel)
    assert all(bits_of(each) <= 7 for each in floats(model).values())
    assert all(errors[name] < 1.05 * before[name] for name in errors)


def test_biases_of_convolutions_with_padding_by_name_too():
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 8, 3, padding="same"), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    given = capture.capture(nn.Sequential(*layers).eval(), INPUT)
    model, _ = weights.quantize(given, bits=8, per_channel=True, mantissa_bits=7)
    assert bits_of(given.get_parameter("0.bias")) > 7
    assert bits_of(model.state_dict()["0.bias"]) <= 7


def test_a_packed_file_spends_about_half_as_much_on_them():
    values = torch.randn(1024, generator=torch.Generator().manual_seed(0))

    def packed_bytes(tensor):
        elements = choosing.elements_of(memoryview(tensor.numpy().tobytes()), 4)
        return choosing.estimated_bytes(choosing.best(elements))

    assert packed_bytes(shortened(values, 7)) < 0.55 * packed_bytes(values)
