"""What training leaves in the weights: zeros that stay zero, and values that stay shared.

Both are read from the weights that a training begins with, and zeros again before every update, so that
there is nothing to write beside the weights for going on with an interrupted training.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule

from slimcv.surgery import magnitude
from slimcv.surgery.layers import chosen
from slimcv.surgery.sharing import is_shared
from slimcv.train.average import Weights
from slimcv.train.pruning import PruningSettings
from slimcv.train.settings import FinetuneSettings


@dataclass(frozen=True)
class Groups:
    """Weights of equal value: the group of each (n,), every group's first weight and their number (k,)."""

    index: Tensor
    first: Tensor
    count: Tensor

    def summed(self, gradient: Tensor) -> Tensor:
        """The gradient of each shared value, which is the sum over its weights (Han et al. 2016).

        Each of n weights is given 1/√n of it: the norm of the gradient is then that of the shared values'
        own, and Adam's steps do not depend on a factor.
        """
        sums = torch.bincount(self.index, gradient.reshape(-1).double(), len(self.count))
        each = (sums / self.count.sqrt()).to(gradient.dtype)
        return each[self.index].view(gradient.shape)

    def tied(self, weight: Tensor) -> Tensor:
        """Every weight as the first of its group: vectorised arithmetic may treat equal numbers otherwise."""
        return weight.reshape(-1)[self.first][self.index].view(weight.shape)


class Kept:
    """Zeros and shared values of a network in training, before and after each update of its weights.

    With PruningSettings more zeros come as the training goes on: `progress` says which part of them has.
    """

    def __init__(self, model: GraphModule, settings: FinetuneSettings) -> None:
        weights = {name: weight for name, weight in model.named_parameters() if weight.ndim > 1}
        keep: Any = ("sparsity", "clusters") if settings.preserve == "auto" else settings.preserve
        self._pruning = settings if isinstance(settings, PruningSettings) else None
        self._pruned = {} if self._pruning is None else prunable(model, self._pruning)
        self._sparse = {
            name: weight
            for name, weight in weights.items()
            if name in self._pruned or ("sparsity" in keep and _is_pruned(weight))
        }
        self._shared = {
            name: (weight, _groups(weight))
            for name, weight in weights.items()
            if "clusters" in keep and name not in self._pruned and _is_clustered(weight)
        }
        self._zeros: dict[str, Tensor] = {}
        self.progress = 1.0 if self._pruning is None else self._pruning.progress(0.0)

    @property
    def settled(self) -> bool:
        """All weights that are to become zero are."""
        return self.progress == 1.0

    @torch.no_grad()
    def before_update(self) -> None:
        """Take out of the gradients what would move zeros, or pull shared values apart."""
        self._zeros = {name: weight == 0 for name, weight in self._sparse.items()}
        for weight, groups in self._shared.values():
            if weight.grad is not None:
                weight.grad.copy_(groups.summed(weight.grad))
        for name, weight in self._sparse.items():
            if weight.grad is not None:
                weight.grad.masked_fill_(self._zeros[name], 0.0)

    @torch.no_grad()
    def after_update(self, share: float) -> None:
        """Bring zeros and shared values back exactly; more zeros, where due after this share of training."""
        self._bring_back({name: weight for name, (weight, _) in self._shared.items()} | self._sparse)
        if self._pruning is None or self._pruning.progress(share) <= self.progress:
            return
        self.progress = self._pruning.progress(share)
        prune(self._pruned, self._pruning, progress=self.progress)
        self._zeros |= {name: weight == 0 for name, weight in self._pruned.items()}

    @torch.no_grad()
    def in_average(self, average: Weights) -> None:
        """The same in the running average of the weights, after `after_update`."""
        self._bring_back(average)

    def _bring_back(self, weights: Weights | dict[str, torch.nn.Parameter]) -> None:
        for name, (_, groups) in self._shared.items():
            weights[name].copy_(groups.tied(weights[name]))
        for name, zeros in self._zeros.items():
            weights[name].masked_fill_(zeros, 0.0)


def prunable(model: GraphModule, settings: PruningSettings) -> dict[str, torch.nn.Parameter]:
    """The weights that are to be pruned, by name; with `n:m` those with m inputs at the least."""
    found = chosen(model, include=settings.include, exclude=settings.exclude)
    return {name: weight for name, weight in found.items() if weight.shape[1] >= settings.form.group}


def prune(
    weights: dict[str, torch.nn.Parameter], settings: PruningSettings, *, progress: float = 1.0
) -> None:
    """Set `progress` of the zeros that are asked for, in place."""
    form = settings.form
    if form.group:
        dropped = round(progress * (form.group - form.kept))
        magnitude.thin(list(weights.values()), group=form.group, dropped=dropped)
    else:
        magnitude.prune(
            list(weights.values()),
            share=progress * settings.sparsity,
            block=(form.rows, form.columns),
            together=settings.scope == "global",
        )


def _is_pruned(weight: Tensor) -> bool:
    """Some weights are exactly zero, which training alone does not bring about; all are in a fresh layer."""
    zeros = int((weight == 0).sum())
    return 0 < zeros < weight.numel()


def _is_clustered(weight: Tensor) -> bool:
    """Values are shared and not all the same, which they are in a fresh layer that begins with zeros."""
    return bool((weight != weight.reshape(-1)[0]).any()) and is_shared(weight)


def _groups(weight: Tensor) -> Groups:
    values, index = torch.unique(weight.detach().reshape(-1), return_inverse=True)
    places = torch.arange(index.numel())
    first = torch.full((len(values),), index.numel()).scatter_reduce_(0, index, places, "amin")
    return Groups(index, first, torch.bincount(index, minlength=len(values)).double())
