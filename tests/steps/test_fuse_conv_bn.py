"""Norms are folded away."""

import pytest
import torch
from torch import nn

from slimcv.errors import NotApplicable
from slimcv.models import capture
from slimcv.step import Context, InputSpec, Variant
from slimcv.steps.fuse_conv_bn import FuseConvBn

INPUT = InputSpec(3, 16, 16)


def early() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(2048, 5)
    )


def late() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.BatchNorm2d(8), nn.Conv2d(8, 8, 3, padding=1), nn.ReLU(),
        nn.MaxPool2d(2), nn.BatchNorm2d(8), nn.Flatten(), nn.Dropout(0.4), nn.Linear(512, 5),
    )  # fmt: skip


def trained(module: nn.Module) -> nn.Module:
    """After two batches the norms' statistics are no longer those they start with."""
    module.train()
    with torch.no_grad():
        for _ in range(2):
            module(3 * torch.randn(16, 3, 16, 16) + 1)
    return module.eval()


def applied(step: FuseConvBn, module: nn.Module, tmp_path) -> tuple[torch.Tensor, torch.Tensor, Variant]:
    variant = Variant(capture.capture(module, INPUT), INPUT)
    with torch.no_grad():
        before = variant.model(capture.example(INPUT))
        after = step.apply(variant, Context(variant, None, tmp_path, threads=1, train_threads=1))
        return before, after.model(capture.example(INPUT)), after


def test_the_outputs_stay_and_the_parameters_become_fewer(tmp_path):
    before, after, variant = applied(FuseConvBn(), trained(early()), tmp_path)
    torch.testing.assert_close(after, before, rtol=1e-5, atol=1e-5)
    assert [name for name, _ in variant.model.named_parameters()] == [
        "0.weight",
        "0.bias",
        "4.weight",
        "4.bias",
    ]
    assert variant.details["fuse_conv_bn"] == {"folded": 1, "absorbed": 0, "left": 0}


def test_a_norm_before_a_padded_convolution_stays_unless_absorbed(tmp_path):
    module = trained(late())
    before, after, variant = applied(FuseConvBn(), module, tmp_path)
    torch.testing.assert_close(after, before, rtol=1e-5, atol=1e-5)
    assert variant.details["fuse_conv_bn"] == {"folded": 1, "absorbed": 0, "left": 1}
    _, _, variant = applied(FuseConvBn(absorb=True), trained(late()), tmp_path)
    assert variant.details["fuse_conv_bn"] == {"folded": 1, "absorbed": 1, "left": 0}


def test_only_without_absorbing_is_it_lossless():
    assert FuseConvBn().lossless
    assert not FuseConvBn(absorb=True).lossless


def test_the_fused_network_learns_and_is_exported_again(tmp_path):
    _, after, variant = applied(FuseConvBn(), trained(early()), tmp_path)
    variant.model(torch.randn(4, 3, 16, 16)).sum().backward()
    assert all(p.grad is not None for p in variant.model.parameters())
    again = capture.lift(capture.exported(variant.model, INPUT))
    torch.testing.assert_close(again(capture.example(INPUT)), after)


def test_a_network_without_norms_is_left(tmp_path):
    module = nn.Sequential(nn.Conv2d(3, 8, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5))
    with pytest.raises(NotApplicable, match="no BatchNorm"):
        applied(FuseConvBn(), module, tmp_path)
