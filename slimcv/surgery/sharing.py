"""Weights that share few values: finding these (k-means on a line), and telling where there are some."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

MOST_VALUES = 256
"""What an index of 8 bits can name."""

WEIGHTS_A_VALUE = 4
"""With fewer weights to a value, naming values takes about as much as the weights themselves."""

_ROUNDS = 300
_FEW = 2048
_SAMPLE = 2**17

Initial = Literal["density", "linear", "kmeans++"]


def is_few(values: Tensor) -> bool:
    """Whether a row of weights consists of few values, each of several weights."""
    most = min(MOST_VALUES, values.numel() // WEIGHTS_A_VALUE)
    if not most or len(torch.unique(values[:_FEW])) > most:  # Most rows are told from their beginning.
        return False
    return len(torch.unique(values)) <= most


def is_shared(weight: Tensor) -> bool:
    """Whether the weights (outputs, …) share few values, all together or within each output."""
    return is_few(weight.detach().reshape(-1)) or all(is_few(row) for row in weight.detach().flatten(1))


@torch.no_grad()
def share(weight: Tensor, count: int, *, initial: Initial, keep_zeros: bool, seed: int) -> bool:
    """Give a tensor at most `count` distinct values, in place; False where it is too small for so many.

    They are the means of what they stand for, as k-means finds them (Han et al. 2016, "Deep Compression").
    With `keep_zeros` zero is one of them, for exactly the weights that are zero.
    """
    flat = weight.reshape(-1)
    if flat.numel() < count * WEIGHTS_A_VALUE:
        return False
    chosen = flat != 0 if keep_zeros else torch.ones_like(flat, dtype=torch.bool)
    some = flat[chosen]
    count -= keep_zeros and some.numel() < flat.numel()
    if some.numel():
        flat = flat.masked_scatter(chosen, _nearest(some, centroids(some, count, initial=initial, seed=seed)))
        weight.copy_(flat.view(weight.shape))
    return True


def centroids(values: Tensor, count: int, *, initial: Initial, seed: int) -> Tensor:
    """At most `count` centroids of numbers (n,), ascending, by Lloyd's algorithm on the sorted numbers.

    It begins with values evenly spaced (`linear`), at equal shares of the numbers (`density`), or each drawn
    far from those before it (`kmeans++`; Arthur and Vassilvitskii 2007).
    """
    ordered = values.double().sort().values
    sums = torch.cat([torch.zeros(1, dtype=torch.float64), ordered.cumsum(0)])
    found = torch.unique(_first(ordered, count, initial, seed))
    for _ in range(_ROUNDS):
        ends = torch.searchsorted(ordered, (found[1:] + found[:-1]) / 2)
        ends = torch.cat([torch.zeros(1, dtype=torch.int64), ends, torch.tensor([len(ordered)])])
        sizes = ends.diff()
        means = torch.where(sizes > 0, sums[ends].diff() / sizes.clamp(min=1), found)
        means = means.sort().values
        if torch.equal(means, found):
            break
        found = means
    distinct: Tensor = torch.unique(found.to(values.dtype))
    return distinct


def _first(ordered: Tensor, count: int, initial: Initial, seed: int) -> Tensor:
    low, high = float(ordered[0]), float(ordered[-1])
    if initial == "linear":
        return torch.linspace(low, high, count, dtype=torch.float64)
    if initial == "density":
        places = (torch.arange(count, dtype=torch.float64) + 0.5) / count * len(ordered)
        return ordered[places.long().clamp(max=len(ordered) - 1)]
    random = torch.Generator().manual_seed(seed)
    sample = ordered[:: max(1, len(ordered) // _SAMPLE)]
    drawn = [sample[torch.randint(len(sample), (1,), generator=random)]]
    distance = (sample - drawn[0]).square()
    while len(drawn) < count and float(distance.sum()) > 0:
        reach = distance.cumsum(0)
        at = torch.searchsorted(reach, torch.rand(1, generator=random, dtype=torch.float64) * reach[-1])
        drawn.append(sample[at.clamp(max=len(sample) - 1)])
        distance = torch.minimum(distance, (sample - drawn[-1]).square())
    return torch.cat(drawn)


def _nearest(values: Tensor, found: Tensor) -> Tensor:
    return found[torch.searchsorted((found[1:] + found[:-1]) / 2, values)]
