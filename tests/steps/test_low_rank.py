"""Dense layers and 1×1 convolutions as two thinner ones."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from slimcv import surgery
from slimcv.errors import NotApplicable
from slimcv.measure import macs, size
from slimcv.models import capture
from slimcv.step import Context, InputSpec, Variant
from slimcv.steps.low_rank import LowRank

INPUT = InputSpec(3, 16, 16)


def low(layer, rank):
    """The layer with a weight of this rank."""
    with torch.no_grad():
        outputs, inputs = layer.weight.shape[:2]
        layer.weight.copy_(
            (torch.randn(outputs, rank) @ torch.randn(rank, inputs) / inputs).view_as(layer.weight)
        )
    return layer


def network(rank: int = 8) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 64, 3, padding=1), nn.ReLU(),
        low(nn.Conv2d(64, 64, 1, stride=2, bias=False), rank), nn.BatchNorm2d(64), nn.ReLU(),
        nn.AdaptiveAvgPool2d(4), nn.Flatten(),
        low(nn.Linear(1024, 96), rank), nn.ReLU(), nn.Linear(96, 5),
    )  # fmt: skip


def variant_of(made: nn.Module) -> Variant:
    return Variant(capture.capture(made.eval(), INPUT), INPUT)


def applied(step, variant: Variant, tmp_path) -> Variant:
    context = Context(variant, None, tmp_path, threads=1, train_threads=1)
    return step.apply(replace(variant, model=capture.copy(variant.model)), context)


def answers(variant: Variant) -> torch.Tensor:
    with torch.no_grad():
        return variant.model(capture.example(INPUT, batch=8))


def test_layers_of_low_rank_become_two_with_the_same_outputs(tmp_path):
    before = variant_of(network())
    after = applied(LowRank(energy=0.9999, calibration_images=32), before, tmp_path)
    torch.testing.assert_close(answers(after), answers(before), rtol=1e-2, atol=1e-3)
    assert size.parameters(after.model) < 0.3 * size.parameters(before.model)
    assert macs.count(after.model, INPUT) < macs.count(before.model, INPUT)
    assert {"2.reduce.weight", "2.expand.weight", "7.reduce.weight", "7.expand.bias", "9.weight"} <= set(
        after.model.state_dict()
    )
    assert not {"2.expand.bias", "7.reduce.bias", "7.weight"} & set(after.model.state_dict())
    found = after.details["low_rank"]
    assert found.keys() == {"2", "7"}
    assert found["7"]["rank"] == 8
    assert found["7"]["energy"] > 0.999
    assert found["7"]["weights"] == [1024 * 96, 8 * (1024 + 96)]


def test_the_rank_may_be_given(tmp_path):
    after = applied(LowRank(rank=16, calibration_images=16), variant_of(network()), tmp_path)
    assert after.model.get_submodule("7.reduce").out_features == 16
    assert after.model.get_submodule("2.reduce").stride == (2, 2)
    assert after.model.get_submodule("2.expand").stride == (1, 1)


def test_convolutions_may_stay(tmp_path):
    after = applied(LowRank(convolutions=False, calibration_images=16), variant_of(network()), tmp_path)
    assert after.details["low_rank"].keys() == {"7"}


def test_what_is_left_of_an_earlier_error_is_made_up_for(tmp_path):
    torch.manual_seed(0)
    made = nn.Sequential(
        nn.Conv2d(3, 64, 3, padding=1), nn.ReLU(), nn.Conv2d(64, 64, 1), nn.ReLU(), nn.Conv2d(64, 64, 1),
        nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 5),
    )  # fmt: skip
    before = variant_of(made)
    settings = {"rank": 8, "calibration_images": 32, "convolutions": True, "exclude": ("8",)}
    plain = applied(LowRank(correct=False, **settings), before, tmp_path)
    fitted = applied(LowRank(**settings), before, tmp_path)
    wanted = outputs(before, "4")
    errors = [float((outputs(one, "4.expand") - wanted).norm()) for one in (plain, fitted)]
    assert errors[1] < errors[0]


def outputs(variant: Variant, name: str) -> torch.Tensor:
    """What one layer gives on pictures like those it was fitted on."""
    context = Context(variant, None, Path("unused"), threads=1, train_threads=1)
    seen = []
    handle = variant.model.get_submodule(name).register_forward_hook(lambda *call: seen.append(call[2]))
    with torch.no_grad():
        for batch in surgery.calibration_batches(context, INPUT, count=32):
            variant.model(batch)
    handle.remove()
    return torch.cat(seen)


def test_every_parameter_learns_and_the_graph_is_exported_again(tmp_path):
    after = applied(LowRank(rank=8, calibration_images=16), variant_of(network()), tmp_path)
    x = torch.randn(4, 3, 16, 16)
    after.model(x).square().sum().backward()
    assert all(p.grad is not None and bool(p.grad.any()) for p in after.model.parameters())
    again = capture.lift(capture.exported(after.model, INPUT))
    torch.testing.assert_close(again(x), after.model(x), rtol=1e-4, atol=1e-5)
    assert again.state_dict().keys() == after.model.state_dict().keys()


def test_layers_that_would_not_become_smaller_are_left(tmp_path):
    with pytest.raises(NotApplicable, match="none of 3 layers"):
        applied(LowRank(rank=90, calibration_images=8), variant_of(network()), tmp_path)


def test_a_network_without_such_layers_is_left(tmp_path):
    with pytest.raises(NotApplicable, match="no dense layer"):
        applied(LowRank(include=("nothing",)), variant_of(network()), tmp_path)
