"""Which layers bear a treatment worst, and which of them to leave as they are."""

import math

import torch
from torch import nn

from slimcv import sensitivity
from slimcv.models import capture
from slimcv.sensitivity import Sensitivity
from slimcv.step import Context, InputSpec, Variant

INPUT = InputSpec(3, 8, 8)


def with_outliers():
    """A network whose last layer has weights that no 8-bit scale does justice to."""
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4))
    with torch.no_grad():
        net[4].weight[:, 0] *= 500
        net[0].weight[0] = 0
        net[0].bias[0] = 0
    return capture.capture(net.eval(), INPUT)


def noise(model):
    return sensitivity.sample(model, INPUT, train=None, images=8)


def test_the_layer_with_outliers_comes_first_and_the_network_stays_as_it_was():
    model = with_outliers()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    ranked = sensitivity.rank(model, noise(model), INPUT, treatment=sensitivity.int8(63))
    assert [one.name for one in ranked] == ["4", "0"]
    assert ranked[0].error > 10 * ranked[1].error
    assert sum(one.mac_share for one in ranked) == 1.0
    assert sum(one.weight_share for one in ranked) == 1.0
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_layers_that_a_treatment_does_not_apply_to_are_not_ranked():
    model = with_outliers()
    ranked = sensitivity.rank(model, noise(model), INPUT, treatment=sensitivity.low_rank())
    assert [one.name for one in ranked] == ["4"]


def test_the_fewest_layers_are_left_whose_absence_brings_the_error_down():
    ranked = [Sensitivity("a", 0.5, 0.01), Sensitivity("b", 0.2, 0.3), Sensitivity("c", 0.01, 0.69)]
    assert sensitivity.to_leave(ranked, error=0.3, mac_share=0.1) == ["a"]
    assert sensitivity.to_leave(ranked, error=0.1, mac_share=0.5) == ["a", "b"]
    assert sensitivity.to_leave(ranked, error=0.1, mac_share=0.1) == ["a"], "b has too much of the network"
    assert sensitivity.to_leave(ranked, error=0.6, mac_share=0.1) == []


def test_the_fewest_layers_are_spared_that_make_half_of_the_error():
    ranked = [
        Sensitivity("large", 0.5, 0.5, 0.6),
        Sensitivity("a", 0.5, 0.1, 0.05),
        Sensitivity("b", 0.4, 0.1, 0.04),
        Sensitivity("c", 0.1, 0.1, 0.01),
    ]
    assert sensitivity.to_spare(ranked, error_share=0.5, weight_share=0.1) == ["a", "b"]
    assert sensitivity.to_spare(ranked, error_share=0.3, weight_share=0.1) == ["a"]
    assert sensitivity.to_spare(ranked, error_share=0.3, weight_share=1.0) == ["large"]


def test_without_data_layers_are_spared_by_noise_like_photographs(tmp_path):
    net = nn.Sequential(
        nn.Conv2d(3, 24, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(24, 2)
    )
    with torch.no_grad():
        net[0].weight[:, :, ::2] /= 1000
        net[4].weight.fill_(1.0)
    model = capture.capture(net.eval(), INPUT)
    context = Context(Variant(model, INPUT), None, tmp_path, threads=1, train_threads=1)
    found = sensitivity.excluded(
        "auto", context.teacher, context, treatment=sensitivity.prune(), step="prune_weights"
    )
    assert found == ("4",)


def test_a_layer_that_leaves_no_numbers_is_spared_before_the_others_where_it_has_room():
    broken = Sensitivity("broken", math.inf, 0.1, 0.05)
    ranked = [broken, Sensitivity("a", 0.5, 0.1, 0.05), Sensitivity("b", 0.1, 0.8, 0.9)]
    assert sensitivity.to_spare(ranked, error_share=0.5, weight_share=0.1) == ["broken", "a"]
    assert sensitivity.to_spare(ranked, error_share=0.5, weight_share=0.05) == ["broken"]
