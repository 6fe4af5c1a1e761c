"""Fewer channels: which ones go, cutting them out of the lifted graph, and proof that the cut is clean."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import gcd
from typing import Any

import torch
from torch import nn
from torch.fx import GraphModule

from slimcv.errors import NotApplicable
from slimcv.measure import macs
from slimcv.models import capture
from slimcv.step import InputSpec
from slimcv.surgery.coupling import Coupled, Cut
from slimcv.surgery.graph import tidy
from slimcv.surgery.norms import BatchNorm

CLEAN = 1e-4
"""What a cut may differ by from the uncut network that ignores the same channels, over the largest output."""

Removed = Mapping[str, tuple[int, ...]]
"""The units removed of each set of coupled channels, by its name."""


@dataclass(frozen=True)
class Work:
    """What a layer costs, and how many input and output channels it has; None where only outputs count."""

    macs: int
    inputs: int | None
    outputs: int


def budget_of(model: GraphModule, input: InputSpec) -> Budget:
    """The MACs of one picture, by layer."""
    costs = macs.by_layer(model, input)
    found: dict[str, Work] = {}
    for name, layer in model.named_modules():
        if isinstance(layer, nn.Conv2d):
            depthwise = layer.groups == layer.in_channels == layer.out_channels and layer.groups > 1
            found[name] = Work(
                costs.get(name, 0), None if depthwise else layer.in_channels, layer.out_channels
            )
        elif isinstance(layer, nn.Linear):
            found[name] = Work(costs.get(name, 0), layer.in_features, layer.out_features)
    others = sum(cost for name, cost in costs.items() if name not in found)
    return Budget(found, others)


class Budget:
    """MACs left while channels are removed: each layer's shrink with its inputs and with its outputs.

    `macs` are those of one picture, `others` the part of them that no layer of `work` does.
    """

    def __init__(self, work: Mapping[str, Work], others: int) -> None:
        self._work = work
        self._gone = {name: [0, 0] for name in work}
        self.macs: float = others + sum(layer.macs for layer in work.values())

    def saving(self, one: Coupled, units: Sequence[int]) -> float:
        """MACs that removing these units as well would save."""
        more = self._counts(one, units)
        return sum(
            self._cost(name, *self._gone[name])
            - self._cost(name, self._gone[name][0] + ins, self._gone[name][1] + outs)
            for name, (ins, outs) in more.items()
        )

    def remove(self, one: Coupled, units: Sequence[int]) -> None:
        """Count these units as removed."""
        self.macs -= self.saving(one, units)
        for name, (ins, outs) in self._counts(one, units).items():
            self._gone[name][0] += ins
            self._gone[name][1] += outs

    def _counts(self, one: Coupled, units: Sequence[int]) -> dict[str, tuple[int, int]]:
        found: dict[str, tuple[int, int]] = {}
        for member in one.members:
            if member.layer in self._work and (member.reads or member.writes):
                count = len(units) * member.width
                ins, outs = found.get(member.layer, (0, 0))
                found[member.layer] = (ins + count, outs) if member.reads else (ins, outs + count)
        return found

    def _cost(self, name: str, ins: int, outs: int) -> float:
        work = self._work[name]
        share = (work.outputs - outs) / work.outputs
        return work.macs * share if work.inputs is None else work.macs * share * (1 - ins / work.inputs)


def choose(
    sets: Sequence[Coupled],
    budget: Budget,
    *,
    target: float,
    round_to: Sequence[int],
    min_kept: float,
    uniform: bool,
    whole: Mapping[str, int] | None = None,
) -> Removed:
    """The units to remove so that at most `target` MACs are left.

    Widths become multiples of one of `round_to` (see `multiple_for`). Of every set at least the share
    `min_kept` stays, counted from the widths in `whole` (as `widths` gives them) where earlier rounds have
    removed some. Globally, what costs least importance for each MAC it saves goes first, block by block, as a
    knapsack is filled greedily (Shen et al. 2022, "Structural Pruning via Latency-Saliency Knapsack");
    `uniform` takes the same share of every set. Raises NotApplicable where the target cannot be reached.
    """
    units = {one.name: (whole or {}).get(one.name, one.units * one.groups) // one.groups for one in sets}
    least = {one.name: max(1, round(min_kept * units[one.name])) for one in sets}
    queues = {one.name: _blocks(one, round_to=round_to, least=least[one.name]) for one in sets}
    removed: dict[str, list[int]] = {one.name: [] for one in sets}
    while budget.macs > target:
        open_sets = [one for one in sets if queues[one.name]]
        if not open_sets:
            raise NotApplicable(
                f"{budget.macs:.3g} MACs are left with {min_kept:.0%} of all channels that can be cut, "
                f"asked for {target:.3g}",
                "ask for less, or lower min_kept",
            )
        best = min(
            open_sets,
            key=lambda one: _price(one, queues[one.name][0], removed[one.name], budget, uniform=uniform),
        )
        block = queues[best.name].pop(0)
        budget.remove(best, block)
        removed[best.name] += block
    return {name: tuple(sorted(units)) for name, units in removed.items() if units}


def _price(
    one: Coupled, block: Sequence[int], gone: Sequence[int], budget: Budget, *, uniform: bool
) -> float:
    if uniform:
        return (len(gone) + len(block)) / one.units
    saved = budget.saving(one, block)
    return float(one.importance[list(block)].sum()) / saved if saved > 0 else float("inf")


def multiple_for(channels: int, multiples: Sequence[int]) -> int:
    """The first of the multiples, coarsest first, of which three fit in so many channels, else the last."""
    return next((multiple for multiple in multiples if 3 * multiple <= channels), multiples[-1])


def _blocks(one: Coupled, *, round_to: Sequence[int], least: int) -> list[list[int]]:
    """Units in the order in which they go, so many at a time that the width that stays is a multiple.

    Finer multiples come last, so that what can be reached does not depend on the coarser ones.
    """
    order = one.importance.argsort().tolist()
    blocks, left = [], one.units
    coarsest = round_to.index(multiple_for(one.units * one.groups, round_to))
    for multiple in round_to[coarsest:]:
        step = multiple // gcd(multiple, one.groups)
        first = left % step or step
        while left - first >= max(step, least):
            blocks.append([order.pop(0) for _ in range(first)])
            left, first = left - first, step
    return blocks


def narrow(model: GraphModule, sets: Sequence[Coupled], removed: Removed) -> GraphModule:
    """A copy of the lifted graph without the removed units; names stay as they were."""
    narrower = capture.copy(model)
    for layer, prune, positions in _cuts(sets, removed):
        prune(narrower.get_submodule(layer), positions)
    tidy(narrower)
    return narrower


def _cuts(sets: Sequence[Coupled], removed: Removed) -> Iterator[tuple[str, Cut, list[int]]]:
    """Each side of each layer once, with all its channels that go."""
    found: dict[tuple[str, Cut], list[int]] = {}
    for one in sets:
        for member in one.members:
            key = (member.layer, member.prune)
            found.setdefault(key, []).extend(member.of(removed.get(one.name, ())))
    for (layer, prune), positions in found.items():
        if positions:
            yield layer, prune, sorted(set(positions))


@torch.no_grad()
def ignoring(model: GraphModule, sets: Sequence[Coupled], removed: Removed) -> GraphModule:
    """A copy of the same shape in which nothing reads the removed units: what a clean cut computes."""
    masked = capture.copy(model)
    for one in sets:
        for member in one.members:
            if member.reads:
                layer = masked.get_submodule(member.layer)
                weight = layer.get_parameter("weight")
                groups = layer.groups if isinstance(layer, nn.Conv2d) else 1
                for position in member.of(removed.get(one.name, ())):
                    group, column = divmod(position, weight.shape[1])
                    rows = len(weight) // groups
                    weight[group * rows : (group + 1) * rows, column] = 0.0
    return masked


@torch.no_grad()
def is_clean(model: GraphModule, sets: Sequence[Coupled], removed: Removed, *, input: InputSpec) -> bool:
    """Whether the narrower network computes what the network does that ignores the same channels."""
    x = capture.example(input)
    try:
        found = narrow(model, sets, removed)(x)
    except capture.FAULTS:
        return False
    expected = ignoring(model, sets, removed)(x)
    scale = float(expected.abs().max()) or 1.0
    return found.shape == expected.shape and float((found - expected).abs().max()) <= CLEAN * scale


def clean_sets(model: GraphModule, sets: Sequence[Coupled], *, input: InputSpec) -> list[Coupled]:
    """The sets that can be cut: all of them where a cut of one unit of each is clean, else those alone."""
    first = {one.name: (0,) for one in sets}
    if is_clean(model, sets, first, input=input):
        return list(sets)
    return [one for one in sets if is_clean(model, [one], {one.name: (0,)}, input=input)]


def widths(model: GraphModule) -> dict[str, int]:
    """Output channels of each convolution and linear layer."""
    return {
        name: layer.out_channels if isinstance(layer, nn.Conv2d) else layer.out_features
        for name, layer in model.named_modules()
        if isinstance(layer, nn.Conv2d | nn.Linear)
    }


def readers(sets: Sequence[Coupled], removed: Removed) -> set[str]:
    """The layers that read fewer channels than before."""
    return {member.layer for one in sets if removed.get(one.name) for member in one.members if member.reads}


def kept(model: GraphModule, sets: Sequence[Coupled], removed: Removed) -> dict[str, list[int]]:
    """The output channels of `model` that are left, of each layer and norm that has fewer."""
    lost: dict[str, set[int]] = {}
    for one in sets:
        for member in one.members:
            if removed.get(one.name) and not member.reads:
                lost.setdefault(member.layer, set()).update(member.of(removed[one.name]))
    found = {}
    for name, gone in lost.items():
        layer: Any = model.get_submodule(name)
        # A norm may have no weights.
        channels = layer.num_features if isinstance(layer, BatchNorm) else len(layer.weight)
        found[name] = [channel for channel in range(channels) if channel not in gone]
    return found
