"""Dense convolutions become separable ones."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from slimcv.errors import NotApplicable
from slimcv.measure import macs
from slimcv.models import capture
from slimcv.step import Context, InputSpec, Variant
from slimcv.steps.depthwise_separable import DepthwiseSeparable
from slimcv.steps.fuse_conv_bn import FuseConvBn
from slimcv.surgery import norms_left

INPUT = InputSpec(3, 32, 32)


def late_norms() -> nn.Module:
    """Convolution → ReLU → norm, so that no norm folds backward."""
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.BatchNorm2d(8),
        nn.Conv2d(8, 16, 3, padding=1), nn.ReLU(), nn.BatchNorm2d(16), nn.MaxPool2d(2),
        nn.Conv2d(16, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.BatchNorm2d(16),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.3), nn.Linear(16, 5),
    )  # fmt: skip


def applied(step, variant: Variant, tmp_path) -> Variant:
    context = Context(variant, None, tmp_path, threads=1, train_threads=1)
    return step.apply(replace(variant, model=capture.copy(variant.model)), context)


def variant_of(module: nn.Module) -> Variant:
    return Variant(capture.capture(module.eval(), INPUT), INPUT)


def answers(variant: Variant) -> torch.Tensor:
    with torch.no_grad():
        return variant.model(capture.example(INPUT))


def test_the_step_takes_fewer_macs_and_leaves_no_dense_convolution(tmp_path):
    before = variant_of(late_norms())
    after = applied(DepthwiseSeparable(calibration_images=8), before, tmp_path)
    assert macs.count(after.model, INPUT) < 0.5 * macs.count(before.model, INPUT)
    convs = [part for part in after.model.modules() if isinstance(part, nn.Conv2d)]
    assert len(convs) == 6
    assert all(conv.kernel_size == (1, 1) or conv.groups == conv.in_channels for conv in convs)
    assert norms_left(after.model) == 0
    assert {"0.depthwise.weight", "0.pointwise.weight", "0.pointwise.bias"} <= set(after.model.state_dict())
    assert "0.depthwise.bias" not in after.model.state_dict()


def test_rank_two_is_two_plain_depthwise_convolutions(tmp_path):
    after = applied(DepthwiseSeparable(rank=2, correct=False), variant_of(late_norms()), tmp_path)
    first, second = (after.model.get_submodule(f"3.depthwise.{number}") for number in range(2))
    assert first.groups == second.groups == first.out_channels == 8
    assert after.model.get_submodule("3.pointwise").in_channels == 16


def test_norms_may_be_kept(tmp_path):
    before = variant_of(late_norms())
    after = applied(DepthwiseSeparable(absorb_norms=False, correct=False), before, tmp_path)
    assert norms_left(after.model) == 3


def test_norms_for_training_fold_away_exactly(tmp_path):
    before = variant_of(late_norms())
    plain = applied(DepthwiseSeparable(calibration_images=8), before, tmp_path)
    normalised = applied(DepthwiseSeparable(calibration_images=8, normalise=True), before, tmp_path)
    assert norms_left(normalised.model) == 3
    torch.testing.assert_close(answers(normalised), answers(plain), rtol=1e-4, atol=1e-4)
    fused = applied(FuseConvBn(), normalised, tmp_path)
    assert norms_left(fused.model) == 0
    assert list(fused.model.state_dict()) == list(plain.model.state_dict())
    torch.testing.assert_close(answers(fused), answers(plain), rtol=1e-4, atol=1e-4)


def test_every_parameter_learns_and_the_graph_is_exported_again(tmp_path):
    after = applied(DepthwiseSeparable(rank=2, calibration_images=8), variant_of(late_norms()), tmp_path)
    x = torch.randn(4, 3, 32, 32)
    after.model(x).square().sum().backward()
    assert all(p.grad is not None and bool(p.grad.any()) for p in after.model.parameters())
    again = capture.lift(capture.exported(after.model, INPUT))
    torch.testing.assert_close(again(x), after.model(x), rtol=1e-4, atol=1e-5)
    assert again.state_dict().keys() == after.model.state_dict().keys()


def test_the_variant_it_came_from_is_left_as_it_was(tmp_path):
    before = variant_of(late_norms())
    state = {name: value.clone() for name, value in before.model.state_dict().items()}
    applied(DepthwiseSeparable(calibration_images=8), before, tmp_path)
    assert all(torch.equal(value, state[name]) for name, value in before.model.state_dict().items())


def test_the_same_seed_gives_the_same_network(tmp_path):
    before = variant_of(late_norms())
    one, other = (applied(DepthwiseSeparable(calibration_images=8), before, tmp_path) for _ in range(2))
    assert torch.equal(answers(one), answers(other))


@pytest.mark.parametrize("name", ["resnet18", "squeezenet1_1"])
def test_networks_of_torchvision_are_converted(name, tmp_path):
    from torchvision import models

    before = variant_of(getattr(models, name)(num_classes=5))
    after = applied(DepthwiseSeparable(calibration_images=8, min_channels=4, refine=0), before, tmp_path)
    assert macs.count(after.model, INPUT) < 0.8 * macs.count(before.model, INPUT)
    assert answers(after).shape == (2, 5)
    assert bool(answers(after).isfinite().all())


def test_a_network_that_is_separable_already_is_left(tmp_path):
    module = nn.Sequential(
        nn.Conv2d(3, 3, 3, groups=3),
        nn.Conv2d(3, 8, 1),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 5),
    )
    with pytest.raises(NotApplicable, match="fewer MACs"):
        applied(DepthwiseSeparable(), variant_of(module), tmp_path)
