"""A small residual network with a shared layer, a sensitive one, and pictures of noise in two classes."""

import pytest
import torch
from torch import nn

from slimcv import data as datasets
from slimcv.models import capture
from slimcv.step import Context, InputSpec, Variant

INPUT = InputSpec(3, 12, 12)


class Residual(nn.Module):
    """A stem with a norm, a 1×1 layer called twice around a depthwise one, a residual sum, a dense layer."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(16)
        self.shared = nn.Conv2d(16, 16, 1)
        self.depthwise = nn.Conv2d(16, 16, 3, padding=1, groups=16)
        self.widen = nn.Conv2d(16, 48, 1)
        self.head = nn.Linear(48, 2)

    def forward(self, x):
        x = torch.relu(self.norm(self.stem(x)))
        x = x + self.shared(self.depthwise(torch.relu(self.shared(x))))
        return self.head(torch.relu(self.widen(x)).mean((2, 3)))


@pytest.fixture
def model():
    torch.manual_seed(3)
    network = Residual().eval()
    with torch.no_grad():
        network.norm.running_mean.uniform_(-0.2, 0.2)
        network.norm.running_var.uniform_(0.5, 1.5)
    return capture.capture(network, INPUT)


@pytest.fixture(scope="session")
def pictures(tmp_path_factory, write_noise):
    folder = tmp_path_factory.mktemp("noise")
    write_noise(folder, size=12, each=24)
    return folder


@pytest.fixture
def context(model, pictures, tmp_path):
    data = datasets.load(str(pictures / "pictures"), cache=pictures / "cache", input=INPUT)
    return Context(Variant(model, INPUT, data.classes), data, tmp_path / "work", threads=1, train_threads=1)
