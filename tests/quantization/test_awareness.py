"""Training an INT8 graph: the same function, gradients for every weight, integers again afterwards."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from slimcv import quantization
from slimcv.models import capture
from slimcv.quantization import awareness
from slimcv.step import InputSpec

INPUT = InputSpec(3, 16, 16)


class Residual(nn.Module):
    """A depthwise and a pointwise convolution around an identity, a pooling, a linear."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.depthwise = nn.Conv2d(16, 16, 3, padding=1, groups=16)
        self.pointwise = nn.Conv2d(16, 16, 1)
        self.head = nn.Linear(16, 5)

    def forward(self, x):
        x = functional.relu(self.stem(x))
        x = functional.relu(x + self.pointwise(functional.relu(self.depthwise(x))))
        return self.head(functional.max_pool2d(x, 2).mean((2, 3)))


def pictures(seed):
    return torch.randn(32, *INPUT.shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module", params=[True, False], ids=["7 bits", "8 bits"])
def quantized(request):
    torch.manual_seed(0)
    network = capture.capture(Residual(), INPUT)
    found = quantization.calibrated(network, pictures(1).split(8), input=INPUT, reduce_range=request.param)
    return found.corrected(found.graph)


def largest(model):
    return max(int(t.int().abs().max()) for t in model.state_dict().values() if t.dtype == torch.int8)


def test_the_trainable_form_is_the_same_function_and_its_weights_are_stored_unchanged(quantized):
    model = awareness.trainable(quantized)
    with torch.no_grad():
        torch.testing.assert_close(model(pictures(2)), quantized(pictures(2)), rtol=1e-4, atol=1e-4)
    again = awareness.stored(model, quantized)
    for name, tensor in quantized.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor), name


def test_every_weight_learns_and_what_is_stored_answers_as_it_did_in_training(quantized):
    model = awareness.trainable(quantized)
    before, limit = quantized.state_dict()["head.weight"].clone(), largest(quantized)
    optimizer = torch.optim.SGD(model.parameters(), 0.05)
    for _ in range(20):
        optimizer.zero_grad()
        functional.cross_entropy(model(pictures(3)), torch.arange(32) % 5).backward()
        assert all(parameter.grad is not None for parameter in model.parameters())
        optimizer.step()
    done = awareness.stored(model, quantized)
    with torch.no_grad():
        torch.testing.assert_close(done(pictures(4)), model(pictures(4)), rtol=1e-4, atol=1e-4)
    assert not torch.equal(done.state_dict()["head.weight"], before)
    assert torch.equal(quantized.state_dict()["head.weight"], before), "the graph it came from stays"
    assert largest(done) <= limit + 1
