"""Which layers bear a treatment worst, and which of them a step had better leave as they are."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import fx

from slimcv.errors import NotApplicable
from slimcv.measure import macs
from slimcv.sensitivity.sampling import Sample, as_deployed, sample
from slimcv.sensitivity.treatments import Treatment, measured
from slimcv.sensitivity.walk import Walk
from slimcv.step import Context, InputSpec, Variant

ERROR_SHARE, WEIGHT_SHARE = 0.5, 0.1
"""`auto` leaves the layers that make this share of the error, with this share of the weights at most."""

log = logging.getLogger("slimcv")


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
    pictures: Sample,
    input: InputSpec,
    *,
    treatment: Treatment,
    seed: int = 0,
    each: Callable[[], None] = lambda: None,
) -> list[Sensitivity]:
    """The layers of a network as it is deployed that `treatment` applies to, the most sensitive first.

    `model` is left as it is. Where outputs are no numbers any more, the error is infinite. `each` is called
    before every layer, and ends the ranking by what it raises.
    """
    costs = {macs.layer_name(node): cost for node, cost in macs.by_node(model, input).items()}
    whole = max(1, sum(costs.values()))
    walk = Walk(model, measured=pictures.measured, fitted=pictures.fitted)
    weights = max(1, sum(layer.weight.numel() for _, layer in walk.layers))
    found = []
    for node, layer in walk.layers:
        each()
        try:
            _, made = measured(walk, node, layer, treatment, labels=None, seed=seed)
        except NotApplicable:
            continue
        name = str(node.target)
        error = math.inf if made.error is None else made.error
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

    Together they have `weight_share` of the weights at most: a layer that has more is passed over. One whose
    error is infinite comes first, and the sum is that of the others.
    """
    left = (1 - error_share) * _squares(ranked)
    return _fewest(ranked, error=left**0.5, room=weight_share, size=lambda one: one.weight_share)


def excluded(
    exclude: tuple[str, ...] | Literal["auto"],
    variant: Variant,
    context: Context,
    *,
    treatment: Treatment,
    step: str,
) -> tuple[str, ...]:
    """A step's globs; `auto` becomes the names of the layers to spare (see `to_spare`).

    They are found as in the table of `slimcv sensitivity`, on noise like photographs where there is no data.
    """
    if exclude != "auto":
        return exclude
    train = None if context.data is None else context.data.train
    model = as_deployed(variant.model, variant.input)
    pictures = sample(model, variant.input, train=train, seed=context.seed)
    ranked = rank(model, pictures, variant.input, treatment=treatment, seed=context.seed)
    names = to_spare(ranked, error_share=ERROR_SHARE, weight_share=WEIGHT_SHARE)
    log.info("%s: %s stay as they are", step, ", ".join(names) or "no layers")
    return tuple(names)


def _fewest(
    ranked: Sequence[Sensitivity], *, error: float, room: float, size: Callable[[Sensitivity], float]
) -> list[str]:
    left = _squares(ranked)
    names = []
    for one in ranked:
        finite = math.isfinite(one.error)
        if finite and left <= error**2:
            break
        if size(one) <= room:
            names.append(one.name)
            room -= size(one)
            left -= one.error**2 if finite else 0.0
    return names


def _squares(ranked: Sequence[Sensitivity]) -> float:
    return sum(one.error**2 for one in ranked if math.isfinite(one.error))
