"""Layers fitted again to what they gave before their inputs were cut."""

import pytest
import torch
from torch import nn

from slimcv import surgery
from slimcv.models import capture
from slimcv.step import InputSpec

INPUT = InputSpec(3, 16, 16)


class Beside(nn.Module):
    """Two branches concatenated, so that a norm reads channels of both."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(3, 16, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([self.left(x), self.right(x)], 1)


def network(groups: int) -> nn.Module:
    """What every second channel of the first layers gives follows from the one before."""
    torch.manual_seed(0)
    first = Beside()
    with torch.no_grad():
        for layer in (first.left, first.right):
            layer.weight[1::2] = 0.5 * layer.weight[::2]
            layer.bias[1::2] = 0.5 * layer.bias[::2]
    return nn.Sequential(
        first, nn.BatchNorm2d(32), nn.ReLU(), nn.Conv2d(32, 16, 3, padding=1, groups=groups),
        nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 5),
    ).eval()  # fmt: skip


def cut(model, units):
    """The network without these units of both branches, and what `refit` is to know of it."""
    importance = surgery.importance_of("l2", model, [], seed=0)
    sets = [one for one in surgery.coupled(model, INPUT, importance) if one.name.startswith("0.")]
    removed = {one.name: tuple(range(*units.indices(one.units))) for one in sets}
    known = {"layers": surgery.readers(sets, removed), "kept": surgery.kept(model, sets, removed)}
    return surgery.narrow(model, sets, removed), known


@torch.no_grad()
def difference(one, other, x):
    expected = other(x)
    return float((one(x) - expected).norm() / expected.norm())


@pytest.mark.parametrize("groups", [1, 2])
def test_channels_that_follow_from_others_are_made_up_for(groups):
    model = capture.capture(network(groups), INPUT)
    narrower, known = cut(model, slice(1, None, 2))
    batches = [torch.randn(8, 3, 16, 16) for _ in range(8)]
    before = difference(narrower, model, batches[0])
    (found,) = surgery.refit(model, narrower, batches=batches, seed=0, **known)
    after = difference(narrower, model, batches[0])
    assert found.name == "3"
    assert found.after < 0.01 * found.before
    assert after < 0.1 * before


def test_what_is_kept_of_a_norm_counts_the_channels_of_all_branches():
    model = capture.capture(network(1), INPUT)
    narrower, known = cut(model, slice(0, 4))
    assert known["kept"]["0.left"] == list(range(4, 16))
    assert known["kept"]["1"] == [*range(4, 16), *range(20, 32)]
    assert narrower.get_submodule("1").num_features == 24
    assert known["layers"] == {"3"}


def test_statistics_behind_a_fitted_layer_move_with_it():
    torch.manual_seed(0)
    made = nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 8, 1, bias=False), nn.BatchNorm2d(8),
        nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5),
    )  # fmt: skip
    model = capture.capture(made.eval(), INPUT)
    sets = surgery.coupled(model, INPUT, surgery.importance_of("l2", model, [], seed=0))
    removed = {"0": (0, 3, 5)}
    narrower = surgery.narrow(model, sets, removed)
    statistics = narrower.get_submodule("3").running_mean.clone()
    batches = [torch.randn(8, 3, 16, 16) for _ in range(8)]
    surgery.refit(
        model, narrower, layers={"2"}, kept=surgery.kept(model, sets, removed), batches=batches, seed=0
    )
    moved = narrower.get_submodule("3").running_mean - statistics
    with torch.no_grad():
        means = []
        for graph in (model, narrower):
            inner = nn.Sequential(*(graph.get_submodule(name) for name in "02"))
            y = inner[1](inner[0](torch.cat(batches)).relu())
            means.append(y.mean((0, 2, 3)))
    torch.testing.assert_close(moved, means[1] - means[0], rtol=1e-3, atol=1e-4)


class Mixed(nn.Module):
    """Linear layers on maps (n, height, width, channels), as in ConvNeXt and Swin."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.first, self.second, self.third = nn.Linear(8, 16), nn.Linear(16, 16), nn.Linear(16, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.first(self.stem(x).permute(0, 2, 3, 1)).relu()
        return self.third(self.second(x).relu()).mean((1, 2))


def test_a_linear_layer_on_maps_is_fitted_to_the_channels_it_still_has():
    torch.manual_seed(0)
    model = capture.capture(Mixed().eval(), INPUT)
    sets = surgery.coupled(model, INPUT, surgery.importance_of("l2", model, [], seed=0))
    removed = {"first": (1, 4), "second": (0, 2, 9)}
    narrower = surgery.narrow(model, sets, removed)
    known = {"layers": surgery.readers(sets, removed), "kept": surgery.kept(model, sets, removed)}
    batches = [torch.randn(8, 3, 16, 16) for _ in range(8)]
    found = surgery.refit(model, narrower, batches=batches, seed=0, **known)
    assert [fit.name for fit in found] == ["second", "third"]
    assert all(fit.after < fit.before for fit in found)
