"""A small network with every kind of layer that runtimes merge, and limits nobody had to measure."""

import warnings

import pytest
import torch
from torch import nn

from slimcv.models.capture import capture
from slimcv.profile import prediction
from slimcv.profile.roofline import Limits
from slimcv.profile.roofline import limits as limiting
from slimcv.step import InputSpec, Variant


class Block(nn.Module):
    """A residual block with norms, a depthwise convolution and a gate."""

    def __init__(self, width):
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(width)
        self.depthwise = nn.Conv2d(width, width, 3, padding=1, groups=width)
        self.gate = nn.Conv2d(width, width, 1)

    def forward(self, x):
        y = nn.functional.hardswish(self.depthwise(torch.relu(self.norm(self.conv(x)))))
        return x + y * torch.sigmoid(self.gate(y.mean((2, 3), keepdim=True)))


class Net(nn.Module):
    """A stem, two blocks and a head."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, stride=2, padding=1)
        self.blocks = nn.Sequential(Block(16), Block(16))
        self.drop = nn.Dropout()
        self.head = nn.Linear(16, 5)

    def forward(self, x):
        return self.head(self.drop(self.blocks(torch.relu(self.stem(x))).mean((2, 3))))


@pytest.fixture(scope="session", autouse=True)
def _soon():
    """What is measured of this machine, and of layers a step would make, needs not be exact here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(limiting, "SECONDS", 0.01)
        patch.setattr(limiting, "_AGAIN", 0.01)
        patch.setattr(prediction, "SECONDS", 0.3)
        yield


@pytest.fixture(scope="session")
def gated():
    """The network as a variant, its norms with statistics that folding must get right."""
    torch.manual_seed(0)
    net = Net()
    for norm in net.modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.running_mean.uniform_(-1, 1)
            norm.running_var.uniform_(0.5, 2)
    input = InputSpec(3, 32, 32)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return Variant(capture(net.eval(), input), input)


@pytest.fixture(scope="session")
def limits():
    """100 GFLOP/s in fp32 and 10 GB/s."""
    return Limits(1, 100.0, 200.0, 400.0, 10.0, 0.0)
