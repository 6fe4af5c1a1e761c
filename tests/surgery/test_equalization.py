"""Channels of like size: the outputs stay what they were, and 8 bits lose less."""

import pytest
import torch
from torch import nn

from slimcv.models import capture
from slimcv.step import InputSpec
from slimcv.surgery import equalize
from slimcv.surgery.equalization import pairs

INPUT = InputSpec(3, 16, 16)


def batches():
    return [torch.randn(8, *INPUT.shape, generator=torch.Generator().manual_seed(seed)) for seed in range(2)]


def uneven(*, relu=nn.ReLU):
    """A network whose channels differ in size by a factor of a thousand."""
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        relu(),
        nn.Conv2d(8, 8, 3, padding=1, groups=8, bias=False),
        nn.Conv2d(8, 16, 1),
        relu(),
        nn.MaxPool2d(2),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(16, 4),
    )
    sizes = torch.logspace(-2, 1, 16)
    with torch.no_grad():
        net[3].weight.mul_(sizes.view(-1, 1, 1, 1))
        net[3].bias.copy_(sizes)  # Above zero: no channel is dead behind the ReLU.
        net[8].weight.div_(sizes)
    return capture.capture(net.eval(), INPUT)


def spread(model):
    """Of the weights that read each channel in the end, the largest over the smallest."""
    weights = model.get_submodule("8").weight.detach().abs().amax(dim=0)
    return float(weights.max() / weights.min())


def test_outputs_stay_and_channels_become_alike():
    model = uneven()
    before, spread_before = [model(batch) for batch in batches()], spread(model)
    assert equalize(model, INPUT, batches()) == 2
    for batch, expected in zip(batches(), before, strict=True):
        torch.testing.assert_close(model(batch), expected, rtol=1e-4, atol=1e-5)
    assert spread(model) < spread_before / 10


def test_depthwise_and_linear_readers_are_found_and_dense_ones_left():
    assert [type(pair.second).__name__ for pair in pairs(uneven(), INPUT)] == ["Conv2d", "Linear"]
    assert [pair.alone for pair in pairs(uneven(), INPUT)] == [True, False]


@pytest.mark.parametrize("activation", [nn.Hardswish, nn.ReLU6, nn.Sigmoid])
def test_what_a_scale_changes_ends_the_search(activation):
    assert pairs(uneven(relu=activation), INPUT) == []


class Mean(nn.Module):
    """The mean over some axes."""

    def __init__(self, *dims):
        super().__init__()
        self.dims = dims

    def forward(self, x):
        return x.mean(self.dims)


class Half(nn.Module):
    """The first half of the channels."""

    def forward(self, x):
        return x.chunk(2, dim=1)[0]


@pytest.mark.parametrize(
    "between",
    [
        [nn.AvgPool2d(4), nn.Flatten(2), nn.Linear(16, 6), nn.Flatten()],
        [Mean(1), nn.Linear(16, 6), nn.Flatten()],
        [Mean(1, 2), nn.Linear(16, 6)],
        [Mean(1, 3), nn.Flatten(), nn.Linear(16, 6)],
        [nn.Flatten(), nn.Unflatten(1, (256, 16)), Mean(1), nn.Linear(16, 6)],
        [Half(), Mean(2, 3), nn.Linear(8, 6)],
    ],
    ids=["positions", "rows", "columns", "means of rows", "mixed", "half"],
)
def test_a_linear_layer_that_reads_something_else_than_channels_is_left_alone(between):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), *between)
    with torch.no_grad():
        net[0].weight.mul_(torch.logspace(-2, 1, 16).view(-1, 1, 1, 1))
    model = capture.capture(net.eval(), INPUT)
    expected = model(batches()[0])
    assert equalize(model, INPUT, batches()) == 0
    assert torch.equal(model(batches()[0]), expected)


def test_a_mean_over_positions_leads_from_channels_to_the_linear_layer_that_reads_them():
    for pool in ([Mean(2, 3)], [nn.Flatten(2), Mean(-1)]):
        net = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), *pool, nn.Linear(16, 6))
        assert len(pairs(capture.capture(net.eval(), INPUT), INPUT)) == 1


def test_a_map_that_is_read_twice_is_left_alone():
    class Residual(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 3, padding=1, groups=3)

        def forward(self, x):
            x = self.first(x)
            return (x + self.second(x)).mean((2, 3))

    model = capture.capture(Residual().eval(), INPUT)
    assert pairs(model, INPUT) == []
    assert equalize(model, INPUT, batches()) == 0


def test_dead_channels_are_left_as_they_are():
    model = uneven()
    with torch.no_grad():
        model.get_submodule("0").weight[2].zero_()
        model.get_submodule("0").bias[2] = 0
    expected = model(batches()[0])
    equalize(model, INPUT, batches())
    torch.testing.assert_close(model(batches()[0]), expected, rtol=1e-4, atol=1e-5)
