"""A smaller input."""

import pytest
import torch
from torch import nn

from slimcv.errors import NotApplicable
from slimcv.models import capture
from slimcv.step import Context, InputSpec, Variant
from slimcv.steps.reduce_resolution import ReduceResolution


def pooled(*, strides: int = 2) -> nn.Module:
    body = [nn.Conv2d(3, 4, 3, padding=1), *[nn.MaxPool2d(2) for _ in range(strides)]]
    return nn.Sequential(*body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 5))


def applied(step: ReduceResolution, module: nn.Module, tmp_path, input: InputSpec | None = None) -> Variant:
    input = input or InputSpec(3, 32, 32)
    variant = Variant(capture.capture(module.eval(), input), input)
    return step.apply(variant, Context(variant, None, tmp_path, threads=1, train_threads=1))


def test_half_the_side_is_the_default(tmp_path):
    after = applied(ReduceResolution(), pooled(), tmp_path)
    assert after.input.shape == (3, 16, 16)
    assert after.model(torch.randn(2, 3, 16, 16)).shape == (2, 5)


def test_the_sides_are_multiples(tmp_path):
    after = applied(ReduceResolution(scale=0.7), pooled(), tmp_path, InputSpec(3, 32, 64))
    assert (after.input.height, after.input.width) == (24, 44)
    after = applied(ReduceResolution(scale=0.7), pooled(), tmp_path, InputSpec(3, 64, 128))
    assert (after.input.height, after.input.width) == (48, 88)
    after = applied(ReduceResolution(scale=0.7, multiple_of=2), pooled(), tmp_path, InputSpec(3, 64, 128))
    assert (after.input.height, after.input.width) == (44, 90)


@pytest.mark.parametrize(
    ("side", "scale", "expected"), [(16, 0.8, 12), (24, 0.9, 20), (28, 0.5, 16), (32, 0.9, 28)]
)
def test_small_pictures_shrink_in_smaller_units(side, scale, expected, tmp_path):
    spec = InputSpec(3, side, side)
    assert applied(ReduceResolution(scale=scale), pooled(), tmp_path, spec).input.height == expected


def test_a_size_wins_over_a_scale_and_keeps_the_proportions(tmp_path):
    after = applied(ReduceResolution(size=20, scale=0.5), pooled(), tmp_path, InputSpec(3, 32, 64))
    assert (after.input.height, after.input.width) == (20, 40)


def test_the_normalisation_stays(tmp_path):
    spec = InputSpec(3, 32, 32, mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6))
    after = applied(ReduceResolution(), pooled(), tmp_path, spec)
    assert (after.input.mean, after.input.std) == (spec.mean, spec.std)


@pytest.mark.parametrize("size", [32, 48])
def test_a_size_that_is_not_smaller_is_refused(size, tmp_path):
    with pytest.raises(NotApplicable, match="not smaller"):
        applied(ReduceResolution(size=size), pooled(), tmp_path)


def test_a_network_that_flattens_a_map_is_refused(tmp_path):
    module = nn.Sequential(nn.Conv2d(3, 4, 4, stride=4), nn.Flatten(), nn.Linear(256, 5))
    with pytest.raises(NotApplicable, match="does not run at 3x16x16"):
        applied(ReduceResolution(), module, tmp_path)


def test_a_map_that_would_vanish_is_refused(tmp_path):
    with pytest.raises(NotApplicable, match="shrink to 1x1"):
        applied(ReduceResolution(), pooled(strides=4), tmp_path)
    assert applied(ReduceResolution(min_map=1), pooled(strides=4), tmp_path).input.height == 16
    with pytest.raises(NotApplicable, match="does not run"):
        applied(ReduceResolution(min_map=1), pooled(strides=5), tmp_path)


def test_maps_that_are_one_position_by_design_do_not_count(tmp_path):
    class Gated(nn.Module):
        """Squeeze and excitation: a gate from the map's mean."""

        def __init__(self):
            super().__init__()
            self.conv, self.gate, self.fc = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 1), nn.Linear(4, 5)

        def forward(self, x):
            x = self.conv(x)
            x = x * self.gate(nn.functional.adaptive_avg_pool2d(x, 1)).sigmoid()
            return self.fc(x.mean((2, 3)))

    assert applied(ReduceResolution(), Gated(), tmp_path).input.shape == (3, 16, 16)
