"""Cutting coupled channels out of lifted graphs: residual, concatenating, grouped, squeeze-excite ones."""

import pytest
import torch
from torch import nn

from slimcv import surgery
from slimcv.errors import NotApplicable
from slimcv.measure import macs
from slimcv.models import capture
from slimcv.step import InputSpec

INPUT = InputSpec(3, 16, 16)


class Block(nn.Module):
    """A residual block with a squeeze-excite gate."""

    def __init__(self, channels: int, groups: int = 1) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, 2 * channels, 1, bias=False)
        self.norm = nn.BatchNorm2d(2 * channels)
        self.middle = nn.Conv2d(2 * channels, 2 * channels, 3, padding=1, groups=groups)
        self.squeeze = nn.Conv2d(2 * channels, 8, 1)
        self.excite = nn.Conv2d(8, 2 * channels, 1)
        self.last = nn.Conv2d(2 * channels, channels, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.middle(self.norm(self.first(x)).relu())
        gate = self.excite(self.squeeze(y.mean((2, 3), keepdim=True)).relu()).sigmoid()
        return x + self.last(y * gate)


class Inception(nn.Module):
    """Two branches concatenated, and the input beside them."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.left = nn.Conv2d(channels, 8, 1)
        self.right = nn.Conv2d(channels, 16, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([x, self.left(x).relu(), self.right(x).relu()], 1)


class Shuffled(nn.Module):
    """A channel shuffle between two convolutions; the second one's channels are free."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(16, 16, 3, padding=1)
        self.second = nn.Conv2d(16, 32, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.first(x).relu()
        n, c, h, w = y.shape
        y = y.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)
        left, right = y.chunk(2, 1)
        return self.second(torch.cat([right, left], 1)).relu()


class Attention(nn.Module):
    """Heads that are no layer's whole width, and a LayerNorm: what cannot be cut; a perceptron that can."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(16)
        self.qkv, self.out = nn.Linear(16, 48), nn.Linear(16, 16)
        self.up, self.down = nn.Linear(16, 32), nn.Linear(32, 16)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = x.flatten(2).transpose(1, 2)
        q, k, v = self.qkv(self.norm(y)).chunk(3, -1)
        y = y + self.out(torch.softmax(q @ k.transpose(1, 2), -1) @ v)
        y = y + self.down(self.up(y).relu())
        return y.transpose(1, 2).reshape(x.shape)


def network(*middle: nn.Module, width: int = 16) -> nn.Module:
    torch.manual_seed(0)
    stem = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU())
    module = nn.Sequential(
        *stem,
        *middle,
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(4 * width, 16),
        nn.ReLU(),
        nn.Linear(16, 5),
    )
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d) and part.affine:
            nn.init.uniform_(part.weight, 0.5, 1.5)
            nn.init.normal_(part.bias, std=0.3)
            nn.init.normal_(part.running_mean, std=0.2)
    return module.eval()


NETWORKS = {
    "plain": lambda: network(nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), width=32),
    "residual, squeeze-excite": lambda: network(Block(16)),
    "depthwise": lambda: network(Block(16, groups=32)),
    "grouped": lambda: network(Block(16, groups=4)),
    "concatenating": lambda: network(Inception(16), nn.BatchNorm2d(40), nn.ReLU(), width=40),
    "shuffled": lambda: network(Shuffled(), width=32),
    "attention": lambda: network(Attention()),
}


def lifted(module):
    return capture.capture(module, INPUT)


def coupled(model, criterion="l2"):
    importance = surgery.importance_of(criterion, model, [capture.example(INPUT)], seed=0)
    return surgery.coupled(model, INPUT, importance)


def chosen(model, sets, share, **options):
    budget = surgery.budget_of(model, INPUT)
    settings = {"round_to": (4,), "min_kept": 0.1, "uniform": False, **options}
    return surgery.choose(sets, budget, target=share * budget.macs, **settings), budget


@pytest.mark.parametrize("name", NETWORKS)
def test_what_is_left_computes_what_the_network_does_that_ignores_the_channels(name):
    model = lifted(NETWORKS[name]())
    sets = coupled(model)
    assert surgery.clean_sets(model, sets, input=INPUT) == sets
    share = 0.95 if name == "attention" else 0.8
    removed, budget = chosen(model, sets, share)
    narrower = surgery.narrow(model, sets, removed)
    x = capture.example(INPUT, batch=4)
    with torch.no_grad():
        expected = surgery.ignoring(model, sets, removed)(x)
        torch.testing.assert_close(narrower(x), expected, rtol=1e-4, atol=1e-5)
        assert float((expected - model(x)).abs().max()) > 1e-3
    assert macs.count(narrower, INPUT) == pytest.approx(budget.macs, rel=1e-6)
    assert macs.count(narrower, INPUT) <= share * macs.count(model, INPUT)
    assert narrower.state_dict().keys() == model.state_dict().keys()


@pytest.mark.parametrize("name", ["residual, squeeze-excite", "depthwise", "concatenating"])
def test_channels_that_are_zero_leave_the_outputs_as_they_are(name):
    model = lifted(NETWORKS[name]())
    sets = coupled(model)
    removed = {one.name: tuple(range(0, one.units, 3)) for one in sets}
    with torch.no_grad():
        for one in sets:
            for member in one.members:
                if not member.reads:
                    layer = model.get_submodule(member.layer)
                    for values in (layer.weight, layer.bias):
                        if values is not None:
                            values[member.of(removed[one.name])] = 0.0
        # The gate's sigmoid of zero is a half, but what it gates is zero.
        x = capture.example(INPUT, batch=4)
        torch.testing.assert_close(surgery.narrow(model, sets, removed)(x), model(x), rtol=1e-4, atol=1e-5)


def test_the_outputs_and_what_passes_through_a_shuffle_keep_their_channels():
    model = lifted(NETWORKS["shuffled"]())
    written = {member.layer for one in coupled(model) for member in one.members if member.writes}
    assert written == {"0", "3.second", "6"}


def test_channels_that_a_layer_norm_takes_together_are_kept():
    model = lifted(NETWORKS["attention"]())
    written = {member.layer for one in coupled(model) for member in one.members if member.writes}
    assert written == {"3.up", "6"}


def test_residual_branches_and_their_sum_are_cut_together():
    sets = {one.name: one for one in coupled(lifted(NETWORKS["residual, squeeze-excite"]()))}
    stream = next(one for one in sets.values() if "0" in [member.layer for member in one.members])
    assert {member.layer for member in stream.members if member.writes} == {"0", "3.last"}
    assert {member.layer for member in stream.members if member.reads} == {"3.first", "6"}


def test_grouped_convolutions_lose_as_many_channels_in_every_group():
    model = lifted(NETWORKS["grouped"]())
    sets = coupled(model)
    removed, _ = chosen(model, sets, 0.6)
    middle = surgery.narrow(model, sets, removed).get_submodule("3.middle")
    assert middle.groups == 4
    assert middle.out_channels % 4 == middle.in_channels % 4 == 0
    assert middle.out_channels < 32


def test_a_cut_that_is_not_clean_is_found():
    model = lifted(NETWORKS["shuffled"]())
    sets = coupled(model)
    second = next(one for one in sets if one.name == "3.second")
    wrong = [member for member in second.members if not member.reads]
    torn = type(second)(second.name, tuple(wrong), second.groups, second.importance)
    assert surgery.is_clean(model, [second], {second.name: (1,)}, input=INPUT)
    assert not surgery.is_clean(model, [torn], {second.name: (1,)}, input=INPUT)
    assert surgery.clean_sets(model, [sets[0], torn], input=INPUT) == [sets[0]]


@pytest.mark.parametrize("criterion", ["taylor", "l1", "l2", "lamp", "fpgm"])
def test_widths_are_multiples_and_the_least_important_go_first(criterion):
    module = network(nn.Conv2d(16, 36, 3, padding=1), nn.ReLU(), width=36)
    with torch.no_grad():
        module[3].weight[::3] *= 0.01
        module[3].bias[::3] *= 0.01
    model = lifted(module)
    one = next(one for one in coupled(model, criterion) if one.name == "3")
    removed, _ = chosen(model, [one], 0.7, round_to=(8,))
    narrower = surgery.narrow(model, [one], removed)
    assert surgery.widths(narrower)["3"] % 8 == 0
    if criterion != "fpgm":
        assert set(removed["3"]) <= set(range(0, 36, 3))


def test_the_distance_of_a_filter_is_that_from_all_others_and_its_negative_is_far():
    module = network(nn.Conv2d(16, 36, 3, padding=1), nn.ReLU(), width=36)
    with torch.no_grad():
        module[3].weight[1] = -module[3].weight[0]
    one = next(one for one in coupled(lifted(module), "fpgm") if one.name == "3")
    filters = module[3].weight.detach().flatten(1).double()
    distances = torch.stack([(filters - each).norm(dim=1).sum() for each in filters])
    torch.testing.assert_close(one.importance, distances / distances.mean())


@pytest.mark.parametrize("criterion", ["taylor", "l1", "l2", "lamp", "fpgm"])
def test_grouped_convolutions_are_followed_whatever_channels_are_judged_by(criterion):
    model = lifted(NETWORKS["grouped"]())
    sets = coupled(model, criterion)
    assert "3.middle" in {member.layer for one in sets for member in one.members}
    assert all(bool(one.importance.isfinite().all()) for one in sets)


def test_an_estimate_that_fails_is_not_taken_for_channels_that_cannot_be_followed():
    def broken(group):
        raise ValueError("a bug of the estimate")

    with pytest.raises(ValueError, match="a bug of the estimate"):
        surgery.coupled(lifted(NETWORKS["plain"]()), INPUT, broken)


def test_a_norm_without_weights_is_cut_and_what_is_kept_of_it_is_known():
    model = lifted(network(nn.Conv2d(16, 32, 3, bias=False), nn.BatchNorm2d(32, affine=False), width=32))
    sets = coupled(model)
    removed = {"3": (0, 5)}
    left = [channel for channel in range(32) if channel not in (0, 5)]
    assert surgery.kept(model, sets, removed) == {"3": left, "4": left}
    assert surgery.is_clean(model, sets, removed, input=INPUT)


def test_uniform_allocation_takes_the_same_share_everywhere():
    model = lifted(NETWORKS["plain"]())
    sets = coupled(model)
    removed, _ = chosen(model, sets, 0.4, uniform=True)
    shares = [len(removed[one.name]) / one.units for one in sets]
    assert max(shares) - min(shares) <= 0.25


def test_wide_layers_are_rounded_coarsely_and_narrow_ones_finely():
    assert [surgery.multiple_for(channels, (16, 8)) for channels in (16, 47, 48, 512)] == [8, 8, 16, 16]
    assert [surgery.multiple_for(channels, (8,)) for channels in (8, 512)] == [8, 8]
    model = lifted(
        nn.Sequential(
            nn.Conv2d(3, 32, 3), nn.ReLU(), nn.Conv2d(32, 96, 3), nn.ReLU(), nn.Conv2d(96, 6, 1),
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 5),
        )
    )  # fmt: skip
    sets = [one for one in coupled(model) if one.units > 6]
    removed, _ = chosen(model, sets, 0.5, round_to=(16, 8), uniform=True)
    left = {one.units: one.units - len(removed[one.name]) for one in sets}
    assert left[32] % 8 == 0
    assert left[32] % 16 != 0
    assert left[96] % 16 == 0
    removed, _ = chosen(model, sets, 0.032, round_to=(16, 8), uniform=True, min_kept=0.01)
    assert {one.units - len(removed[one.name]) for one in sets} == {8}, "as narrow as with 8 alone"


def test_a_target_out_of_reach_is_told():
    model = lifted(NETWORKS["plain"]())
    with pytest.raises(NotApplicable, match="MACs are left"):
        chosen(model, coupled(model), 0.3, min_kept=0.9)
