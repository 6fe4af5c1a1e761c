"""How much each channel matters: torch-pruning's estimates, gradients for one of them, and one of our own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor
from torch.fx import GraphModule
from torch.nn import functional

from slimcv.surgery.coupling import Importance

Criterion = Literal["taylor", "l2", "l1", "lamp", "fpgm"]


def importance_of(
    criterion: Criterion, model: GraphModule, batches: Sequence[Tensor], *, seed: int
) -> Importance:
    """The estimate of this name; for `taylor` gradients are left in the parameters of `model`.

    `l1`, `l2`: the norms of all weights that make or read a channel, over the mean of those coupled with it
    (Li et al. 2017, "Pruning Filters for Efficient ConvNets"; for groups Fang et al. 2023, "DepGraph").
    `lamp`: the squares, over those of all larger channels (Lee et al. 2021, "Layer-adaptive Sparsity for the
    Magnitude-based Pruning"). `fpgm`: the distances of the weights that make a channel from those that
    make the others (He et al. 2019, "Filter Pruning via Geometric Median"). `taylor`: what the loss would
    change by to the first order (Molchanov et al. 2019, "Importance Estimation for Neural Network Pruning"),
    on normalised pictures `(n, C, H, W)`.
    """
    from torch_pruning.pruner import importance

    if criterion == "taylor":
        _gradients(model, batches, seed=seed)
        return importance.GroupTaylorImportance(group_reduction="sum", normalizer=None)  # type: ignore[no-any-return]
    if criterion == "lamp":
        return importance.LAMPImportance()  # type: ignore[no-any-return]
    if criterion == "fpgm":
        return _distances
    return importance.GroupMagnitudeImportance(p=1 if criterion == "l1" else 2)  # type: ignore[no-any-return]


@torch.no_grad()
def _distances(group: Any) -> Tensor | None:
    """Each filter's Euclidean distances from all others, added up over the layers of a group, over the mean.

    torch-pruning's own estimate is of squared weights, among which a filter and its negative are the same.
    """
    from torch_pruning.pruner import function

    making = (function.prune_conv_out_channels, function.prune_linear_out_channels)
    total: Tensor | None = None
    for item in group:
        if item.dep.handler in making and None not in item.root_idxs:
            filters = item.dep.target.module.weight[item.idxs].flatten(1).double()
            total = filters.new_zeros(len(group[0].idxs)) if total is None else total
            total.index_add_(0, torch.tensor(item.root_idxs), torch.cdist(filters, filters).sum(1))
    return None if total is None else total / total.mean().clamp(min=torch.finfo(total.dtype).tiny)


def _gradients(model: GraphModule, batches: Sequence[Tensor], *, seed: int) -> None:
    """Root mean squares over the batches of the gradient of the loss, in eval mode, in place of gradients.

    In a trained network gradients cancel over the pictures, their squares do not. Classes are drawn from what
    the network itself predicts, so that no labels are needed and the squares are those of the Fisher
    information (Theis et al. 2018, "Faster Gaze Prediction with Dense Networks and Fisher Pruning").
    """
    generator = torch.Generator().manual_seed(seed)
    parameters = [parameter for parameter in model.parameters() if parameter.is_floating_point()]
    for parameter in parameters:
        parameter.requires_grad_(True)
    squares = [torch.zeros_like(parameter) for parameter in parameters]
    for batch in batches:
        with torch.enable_grad():
            logits = model(batch)
            drawn = logits.detach().softmax(1).multinomial(1, generator=generator).squeeze(1)
            found = torch.autograd.grad(
                functional.cross_entropy(logits, drawn), parameters, allow_unused=True
            )
        for square, gradient in zip(squares, found, strict=True):
            if gradient is not None:
                square += gradient.square()
    for parameter, square in zip(parameters, squares, strict=True):
        parameter.grad = (square / len(batches)).sqrt()
