"""Which layers bear a treatment worst, and which of them a step had better leave as they are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, fx

from slimcv.errors import NotApplicable
from slimcv.measure import macs
from slimcv.sensitivity.effects import relative_error
from slimcv.sensitivity.treatments import Treatment
from slimcv.sensitivity.walk import Walk
from slimcv.step import Context, InputSpec

PICTURES = 32
"""Pictures that steps compare outputs on."""

ERROR_SHARE, WEIGHT_SHARE = 0.5, 0.1
"""`auto` leaves the layers that make this share of the error, with this share of the weights at most."""

_BATCH = 8


@dataclass(frozen=True)
class Sensitivity:
    """A layer, how far it moves the outputs when it is treated (norm over norm), its share of the network."""

    name: str
    error: float
    mac_share: float
    weight_share: float = 0.0


@torch.no_grad()
def rank(
    model: fx.GraphModule,
    pictures: Tensor,
    input: InputSpec,
    *,
    treatment: Treatment,
    seed: int = 0,
    each: Callable[[], None] = lambda: None,
) -> list[Sensitivity]:
    """The layers of a lifted graph in eval mode that `treatment` applies to, the most sensitive first.

    `pictures` are normalised (n, channels, height, width); what the treatment fits, it fits on them too.
    `model` is left as it is. `each` is called before every layer, and ends the ranking by what it raises.
    """
    costs = {macs.layer_name(node): cost for node, cost in macs.by_node(model, input).items()}
    whole = max(1, sum(costs.values()))
    batches = [pictures[at : at + _BATCH] for at in range(0, len(pictures), _BATCH)]
    walk = Walk(model, measured=batches, fitted=batches)
    weights = max(1, sum(layer.weight.numel() for _, layer in walk.layers))
    found = []
    for node, layer in walk.layers:
        each()
        try:
            changed = treatment.change(walk, node, layer, seed=seed)
        except NotApplicable:
            continue
        error = relative_error(walk.outputs_with(node, changed.module), walk.expected)
        name = str(node.target)
        shares = costs.get(name, 0) / whole, layer.weight.numel() / weights
        found.append(Sensitivity(name, error, *shares))
    return sorted(found, key=lambda one: one.error, reverse=True)


def to_leave(ranked: Sequence[Sensitivity], *, error: float, mac_share: float) -> list[str]:
    """The fewest layers without which the others' errors come to `error` or less, adding in squares.

    Together they have `mac_share` of the MACs at most: a layer that has more is passed over.
    """
    return _fewest(ranked, error=error, room=mac_share, size=lambda one: one.mac_share)


def to_spare(ranked: Sequence[Sensitivity], *, error_share: float, weight_share: float) -> list[str]:
    """The fewest layers that make `error_share` of the sum of all squared errors.

    Together they have `weight_share` of the weights at most: a layer that has more is passed over.
    """
    left: float = (1 - error_share) * sum(one.error**2 for one in ranked)
    return _fewest(ranked, error=left**0.5, room=weight_share, size=lambda one: one.weight_share)


def spared(model: fx.GraphModule, context: Context, input: InputSpec, *, treatment: Treatment) -> list[str]:
    """What a step's `auto` leaves: see `to_spare`; on noise like photographs where there is no data."""
    from slimcv import surgery
    from slimcv.models import capture

    capture.set_training(model, False)
    pictures = torch.cat(surgery.calibration_batches(context, input, count=PICTURES))
    ranked = rank(model, pictures, input, treatment=treatment, seed=context.seed)
    return to_spare(ranked, error_share=ERROR_SHARE, weight_share=WEIGHT_SHARE)


def _fewest(
    ranked: Sequence[Sensitivity], *, error: float, room: float, size: Callable[[Sensitivity], float]
) -> list[str]:
    left = sum(one.error**2 for one in ranked)
    names = []
    for one in ranked:
        if left <= error**2:
            break
        if size(one) <= room:
            names.append(one.name)
            room -= size(one)
            left -= one.error**2
    return names
