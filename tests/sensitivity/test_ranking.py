"""Which layers bear 8 bits worst, and which of them to leave in float."""

import torch
from torch import nn

from slimcv import sensitivity
from slimcv.models import capture
from slimcv.sensitivity import Sensitivity
from slimcv.step import InputSpec

INPUT = InputSpec(3, 8, 8)


def test_the_layer_with_outliers_comes_first_and_the_network_stays_as_it_was():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4))
    with torch.no_grad():
        net[4].weight[:, 0] *= 500
        net[0].weight[0] = 0
        net[0].bias[0] = 0
    model = capture.capture(net.eval(), INPUT)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    ranked = sensitivity.rank(model, torch.randn(8, *INPUT.shape), INPUT, levels=63)
    assert [one.name for one in ranked] == ["4", "0"]
    assert ranked[0].error > 10 * ranked[1].error
    assert sum(one.mac_share for one in ranked) == 1.0
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_the_fewest_layers_are_left_whose_absence_brings_the_error_down():
    ranked = [Sensitivity("a", 0.5, 0.01), Sensitivity("b", 0.2, 0.3), Sensitivity("c", 0.01, 0.69)]
    assert sensitivity.to_leave(ranked, error=0.3, mac_share=0.1) == ["a"]
    assert sensitivity.to_leave(ranked, error=0.1, mac_share=0.5) == ["a", "b"]
    assert sensitivity.to_leave(ranked, error=0.1, mac_share=0.1) == ["a"], "b has too much of the network"
    assert sensitivity.to_leave(ranked, error=0.6, mac_share=0.1) == []
