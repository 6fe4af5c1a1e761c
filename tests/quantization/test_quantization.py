"""The INT8 graph: what is stored, what it answers, and what it refuses."""

import os

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from slimcv import quantization
from slimcv.errors import NotApplicable
from slimcv.measure import macs
from slimcv.models import capture
from slimcv.quantization import weights
from slimcv.step import InputSpec

INPUT = InputSpec(3, 16, 16)


class Residual(nn.Module):
    """Dense, depthwise and pointwise convolutions around an identity, the first without bias; a linear."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.depthwise = nn.Conv2d(16, 16, 3, padding=1, groups=16)
        self.pointwise = nn.Conv2d(16, 16, 1)
        self.head = nn.Linear(16, 5)

    def forward(self, x):
        x = functional.relu(self.stem(x))
        x = functional.relu(x + self.pointwise(functional.hardswish(self.depthwise(x))))
        return self.head(functional.max_pool2d(x, 2).mean((2, 3)))


def lifted(network):
    torch.manual_seed(0)
    return capture.capture(network, INPUT)


def pictures(count=32, seed=1):
    return torch.randn(count, *INPUT.shape, generator=torch.Generator().manual_seed(seed))


def quantize(model, *, reduce_range=True, correct_bias=True, batches=None):
    batches = pictures().split(8) if batches is None else batches
    found = quantization.calibrated(model, batches, input=INPUT, reduce_range=reduce_range)
    return found.corrected(found.graph) if correct_bias else found.graph


def answers(model, batch):
    with torch.no_grad():
        return model(batch)


def relative_error(expected, found):
    return float((expected - found).norm() / expected.norm())


@pytest.fixture(scope="module")
def network():
    return lifted(Residual())


@pytest.fixture(scope="module")
def quantized(network):
    return quantize(network)


def test_the_answers_stay_near_those_in_float(network, quantized):
    fresh = pictures(seed=2)
    assert relative_error(answers(network, fresh), answers(quantized, fresh)) < 0.05


def test_every_layer_takes_integers(quantized):
    assert macs.int8_share(quantized, INPUT) == 1.0
    assert quantization.layers_in_float(quantized, INPUT) == {}


def test_weights_are_stored_as_integers_under_their_own_names(quantized):
    stored = {name: tensor for name, tensor in quantized.state_dict().items() if tensor.dtype == torch.int8}
    assert set(stored) == {"stem.weight", "depthwise.weight", "pointwise.weight", "head.weight"}


def test_a_reduced_range_keeps_weights_to_seven_bits(network, quantized):
    reduced = [tensor.int() for tensor in quantized.state_dict().values() if tensor.dtype == torch.int8]
    assert all(2 * 255 * int(tensor.abs().max()) < 2**15 for tensor in reduced)
    full = quantize(network, reduce_range=False).state_dict()["head.weight"].int()
    assert int(full.abs().max()) >= 127


def test_residual_sums_are_fed_by_integers(quantized):
    sums = quantized.graph.find_nodes(op="call_function", target=torch.ops.aten.add.Tensor)
    assert len(sums) == 1
    assert any("dequantize_per_tensor" in str(operand.target) for operand in sums[0].all_input_nodes)


def test_the_network_it_was_made_from_is_left_as_it_was():
    model = lifted(Residual())
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    code = model.code
    quantize(model)
    assert model.code == code
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_the_graph_takes_any_batch_size_and_is_lifted_again_unchanged(quantized):
    again = capture.lift(capture.exported(capture.copy(quantized), INPUT))
    for count in (1, 2, 5):
        batch = pictures(count, seed=count)
        found = answers(quantized, batch)
        assert found.shape == (count, 5)
        assert torch.equal(found, answers(again, batch))


def test_bias_correction_brings_the_means_back(network, quantized):
    fresh = pictures(256, seed=3)
    expected = answers(network, fresh).mean(0)
    uncorrected = answers(quantize(network, correct_bias=False), fresh).mean(0)
    corrected = answers(quantized, fresh).mean(0)
    assert (corrected - expected).norm() < (uncorrected - expected).norm()


class OnMaps(nn.Module):
    """A linear layer on maps (n, height, width, channels), as in ConvNeXt and Swin."""

    def __init__(self, width):
        super().__init__()
        self.stem, self.mix = nn.Conv2d(3, 16, 3, padding=1), nn.Linear(16, width)

    def forward(self, x):
        return functional.relu(self.mix(functional.relu(self.stem(x)).permute(0, 2, 3, 1))).mean((1, 2))


def means_of(model, batch, *targets, axes):
    """The channel means of what the one node gives that calls any of these targets."""
    found = []

    class Recording(torch.fx.Interpreter):
        def run_node(self, n):
            result = super().run_node(n)
            if n.target in targets:
                found.append(result.mean(axes))
            return result

    with torch.no_grad():
        Recording(model).run(batch)
    (means,) = found
    return means


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("width", [16, 24], ids=["as wide as the map", "wider"])
def test_a_linear_layer_on_maps_has_its_channels_last(width, bits):
    model, shown = lifted(OnMaps(width).eval()), pictures()
    if bits == 8:
        found = quantize(model, batches=[shown])
    else:
        found, _ = weights.quantize(model, bits=bits, per_channel=True, pictures=shown)
    expected, corrected = (
        means_of(each, shown, "mix", torch.ops.aten.linear.default, axes=(0, 1, 2)) for each in (model, found)
    )
    torch.testing.assert_close(corrected, expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("padding", ["same", "valid"])
def test_a_convolution_with_padding_by_name_has_its_means_brought_back(padding):
    layers = nn.Sequential(nn.Conv2d(3, 8, 3, padding=padding, bias=False), nn.AvgPool2d(14), nn.Flatten())
    model, shown = lifted(layers.eval()), pictures() + 1.0
    plain, _ = weights.quantize(model, bits=3, per_channel=True)
    corrected, _ = weights.quantize(model, bits=3, per_channel=True, pictures=shown)
    expected, before, after = (
        means_of(each, shown, "0", torch.ops.aten.conv2d.padding, axes=(0, 2, 3))
        for each in (model, plain, corrected)
    )
    torch.testing.assert_close(after, expected, rtol=1e-3, atol=1e-4)
    assert (before - expected).abs().max() > 0.01


def test_a_convolution_without_a_bias_gets_one(network, quantized):
    assert "stem.bias" not in network.state_dict()
    convolutions = quantized.graph.find_nodes(op="call_function", target=torch.ops.aten.conv2d.default)
    assert all(node.args[2] is not None for node in convolutions)


def test_a_norm_that_could_not_be_folded_stays_and_works():
    network = lifted(
        nn.Sequential(
            nn.Conv2d(3, 8, 3),
            nn.ReLU(),
            nn.BatchNorm2d(8),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(8, 3),
        )
    )
    found = quantize(network)
    assert found.graph.find_nodes(op="call_function", target=torch.ops.aten.batch_norm.default)
    assert relative_error(answers(network, pictures()), answers(found, pictures())) < 0.05


def test_ranges_are_means_over_batches_and_not_those_of_the_first_one(network):
    quiet, loud = 0.1 * pictures(8), pictures(8, seed=5)
    order_matters_not = [quantize(network, batches=batches) for batches in ([quiet, loud], [loud, quiet])]
    scales = [
        [node.args[1] for node in model.graph.nodes if "quantize_per_tensor" in str(node.target)]
        for model in order_matters_not
    ]
    assert np.allclose(scales[0][0], scales[1][0], rtol=1e-5)


def test_a_network_without_layers_is_not_applicable():
    class Means(nn.Module):
        def forward(self, x):
            return x.mean((2, 3))

    with pytest.raises(NotApplicable, match="nothing to quantise"):
        quantize(lifted(Means()))


def test_no_pictures_is_not_applicable(network):
    with pytest.raises(NotApplicable, match="no pictures"):
        quantize(network, batches=[])


@pytest.mark.parametrize(("kernel", "left"), [(3, []), (2, ["1"])])
def test_a_layer_that_stays_in_float_is_named(kernel, left):
    """Padding by 2×2 kernels is one-sided, which the quantiser does not take."""
    network = lifted(
        nn.Sequential(
            nn.Conv2d(3, 8, 3, padding="valid"),
            nn.Conv2d(8, 8, kernel, padding="same"),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
        )
    )
    found = quantize(network)
    assert list(quantization.layers_in_float(found, INPUT)) == left
    assert (macs.int8_share(found, INPUT) == 1.0) == (not left)
    assert relative_error(answers(network, pictures()), answers(found, pictures())) < 0.05


def test_nothing_reaches_the_terminal(network, capfd):
    quantize(network)
    assert capfd.readouterr() == ("", "")


def test_output_is_back_after_an_error_in_the_quiet(capfd):
    def fail():
        os.write(1, b"lost")
        raise ValueError

    with pytest.raises(ValueError), quantization.quiet():
        fail()
    os.write(1, b"kept")
    assert capfd.readouterr() == ("kept", "")
