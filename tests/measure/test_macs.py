"""MACs agree with torch's own counter, layer by layer, and leave the model alone."""

import copy

import pytest
import torch
from torch import nn
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


@pytest.mark.parametrize("build", [_convolutional, Attention])
def test_the_count_is_half_of_what_the_flop_counter_says(build):
    net = build().eval()
    with FlopCounterMode(display=False) as flops, torch.no_grad():
        net(torch.zeros(1, *INPUT.shape))
    assert macs.count(capture.capture(net, INPUT), INPUT) == flops.get_total_flops() // 2


def test_layers_are_named_as_in_the_state_dict():
    layers = macs.by_layer(capture.capture(_convolutional(), INPUT), INPUT)
    assert layers == {
        "0": 3 * 8 * 9 * 12 * 20,
        "3": 8 * 9 * 5 * 9,
        "4": 8 * 12 * 5 * 9,
        "8": 48 * 7,
    }


def test_counting_changes_neither_running_statistics_nor_mode():
    model = capture.capture(_convolutional(), INPUT)
    capture.set_training(model, True)
    before = copy.deepcopy(model.state_dict())
    assert macs.count(model, INPUT) > 0
    assert all(part.training for part in model.modules())
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name])


def test_a_float_model_does_nothing_on_integers():
    assert macs.int8_share(capture.capture(_convolutional(), INPUT), INPUT) == 0.0
