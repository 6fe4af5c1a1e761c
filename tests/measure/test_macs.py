"""MACs agree with torch's own counter, layer by layer, and leave the model alone."""

import copy

import pytest
import torch
import torch.ao.quantization.fx._decomposed  # defines the operators of quantised graphs
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from slimcv.measure import macs
from slimcv.models import capture
from slimcv.step import InputSpec

INPUT = InputSpec(3, 12, 20)


class Attention(nn.Module):
    """Pictures as sequences, so that matrix products without weights are met too."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Conv2d(3, 16, 4, stride=4)
        self.query = nn.Linear(16, 48)
        self.head = nn.Linear(16, 5)

    def forward(self, x):
        x = self.embed(x).flatten(2).transpose(1, 2)
        q, k, v = self.query(x).chunk(3, dim=-1)
        return self.head((torch.softmax(q @ k.transpose(1, 2), -1) @ v).mean(1))


class Transformer(nn.Module):
    """One block as a vision transformer has it, its attention a single operator."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Conv2d(3, 32, 4, stride=4)
        self.norm = nn.LayerNorm(32)
        self.qkv = nn.Linear(32, 96)
        self.mix = nn.Linear(32, 32)
        self.mlp = nn.Sequential(nn.Linear(32, 64), nn.GELU(), nn.Linear(64, 32))
        self.head = nn.Linear(32, 5)

    def forward(self, x):
        x = self.embed(x).flatten(2).transpose(1, 2)
        batch, tokens, width = x.shape
        q, k, v = self.qkv(self.norm(x)).reshape(batch, tokens, 3, 4, 8).permute(2, 0, 3, 1, 4).unbind(0)
        mixed = nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2)
        x = x + self.mix(mixed.reshape(batch, tokens, width))
        return self.head((x + self.mlp(x)).mean(1))


def _upsampling():
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2),
        nn.ConvTranspose2d(8, 6, 3, stride=2, bias=False),
        nn.ConvTranspose2d(6, 4, 2, stride=2, groups=2),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(4, 3),
    )


def _convolutional():
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, stride=2, groups=8, bias=False),
        nn.Conv2d(8, 12, 1),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Dropout(),
        nn.Linear(48, 7),
    )


@pytest.mark.parametrize("build", [_convolutional, Attention, Transformer, _upsampling])
def test_the_count_is_half_of_what_the_flop_counter_says(build):
    net = build().eval()
    # Torch counts attention where it is made of matrix products; of the CPU's own kernel it knows nothing.
    with FlopCounterMode(display=False) as flops, torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
        net(torch.zeros(1, *INPUT.shape))
    assert macs.count(capture.capture(net, INPUT), INPUT) == flops.get_total_flops() // 2


@pytest.mark.parametrize(("name", "published"), [("resnet50", 4.089e9), ("mobilenet_v2", 0.301e9)])
def test_the_count_is_that_which_torchvision_publishes(name, published):
    """Made with fvcore, which calls a MAC a FLOP; the figure stands beside the weights."""
    import torchvision

    input = InputSpec(3, 224, 224)
    net = getattr(torchvision.models, name)()
    assert macs.count(capture.capture(net, input), input) == pytest.approx(published, rel=0.01)


def test_layers_are_named_as_in_the_state_dict():
    layers = macs.by_layer(capture.capture(_convolutional(), INPUT), INPUT)
    assert layers == {
        "0": 3 * 8 * 9 * 12 * 20,
        "3": 8 * 9 * 5 * 9,
        "4": 8 * 12 * 5 * 9,
        "8": 48 * 7,
    }


def test_attention_counts_two_products_of_every_pair_of_tokens():
    layers = macs.by_layer(capture.capture(Transformer(), INPUT), INPUT)
    tokens, width = 3 * 5, 32
    assert layers["scaled_dot_product_attention"] == 2 * tokens**2 * width


def test_counting_changes_neither_running_statistics_nor_mode():
    model = capture.capture(_convolutional(), INPUT)
    capture.set_training(model, True)
    before = copy.deepcopy(model.state_dict())
    assert macs.count(model, INPUT) > 0
    assert all(part.training for part in model.modules())
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name])


class HalfQuantized(nn.Module):
    """A layer on integers; attention and a transposed convolution that stay in float."""

    def __init__(self):
        super().__init__()
        self.register_buffer("folded", torch.ones(32, 3, 4, 4, dtype=torch.int8))
        self.grow = nn.ConvTranspose2d(32, 5, 2, stride=2)

    def forward(self, x):
        x = _through_integers(x, torch.uint8)
        weight = torch.ops.quantized_decomposed.dequantize_per_tensor(
            self.folded, 0.1, 0, -128, 127, torch.int8
        )
        x = torch.conv2d(x, weight, None, [4, 4]).flatten(2).transpose(1, 2).unsqueeze(1)
        x = nn.functional.scaled_dot_product_attention(x, x, x).squeeze(1)
        return self.grow(x.transpose(1, 2).unflatten(2, (3, 5))).mean((2, 3))


def _through_integers(x, dtype):
    x = torch.ops.quantized_decomposed.quantize_per_tensor(x, 0.03, 128, 0, 255, dtype)
    return torch.ops.quantized_decomposed.dequantize_per_tensor(x, 0.03, 128, 0, 255, dtype)


def test_what_stays_in_float_counts_whatever_it_is():
    model = capture.capture(HalfQuantized().eval(), INPUT)
    tokens, width = 3 * 5, 32
    convolution, attention, transposed = (
        3 * 16 * width * tokens,
        2 * tokens**2 * width,
        width * 5 * 4 * tokens,
    )
    whole = convolution + attention + transposed
    assert macs.count(model, INPUT) == whole
    assert macs.int8_share(model, INPUT) == pytest.approx(convolution / whole)
    in_float = {macs.layer_name(node) for node in macs.by_node(model, INPUT) if not macs.on_integers(node)}
    assert in_float == {"scaled_dot_product_attention", "grow"}


def test_a_float_model_does_nothing_on_integers():
    assert macs.int8_share(capture.capture(_convolutional(), INPUT), INPUT) == 0.0
