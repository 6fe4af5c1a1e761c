"""Where the backward computation spends its time, by kind of layer."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from slimcv.profile import kinds
from slimcv.profile.backward import ACCUMULATION, backward_by_kind


def network():
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(2),
        nn.Conv2d(8, 8, 3, groups=8),
        nn.Conv2d(8, 16, 1),
        nn.Hardswish(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(16, 4),
    )


@pytest.mark.parametrize("bf16", [False, True])
def test_kinds_are_those_of_the_layers_and_the_gradients_those_of_torch(bf16):
    model, pictures, labels = network(), torch.randn(2, 3, 16, 16), torch.tensor([0, 1])

    def loss():
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            answer = model(pictures)
        return functional.cross_entropy(answer.float(), labels)

    torch.autograd.backward(loss())
    expected = [parameter.grad.clone() for parameter in model.parameters()]
    model.zero_grad()
    found = backward_by_kind(loss())
    assert set(found) >= {
        "3×3 convolution",
        kinds.DEPTHWISE,
        kinds.POINTWISE,
        kinds.BATCH_NORM,
        kinds.ACTIVATION,
        kinds.POOLING,
        kinds.LINEAR,
        ACCUMULATION,
    }
    assert list(found.values()) == sorted(found.values(), reverse=True)
    assert all(milliseconds > 0 for milliseconds in found.values())
    assert all(torch.equal(p.grad, e) for p, e in zip(model.parameters(), expected, strict=True))


def test_transposed_convolutions_are_a_kind_of_their_own():
    layers = nn.Sequential(nn.ConvTranspose2d(3, 8, 3), nn.ConvTranspose2d(8, 8, 2, groups=8))
    found = backward_by_kind(layers(torch.randn(1, 3, 8, 8)).sum())
    assert kinds.TRANSPOSED in found
    assert not {kinds.DEPTHWISE, "3×3 convolution"} & set(found)


def test_attention_and_sums_have_kinds_too():
    tokens = torch.randn(1, 2, 4, 8, requires_grad=True)
    attended = functional.scaled_dot_product_attention(tokens, tokens, tokens)
    assert {kinds.ATTENTION, kinds.ELEMENTWISE} <= set(backward_by_kind((attended + tokens).sum()))
