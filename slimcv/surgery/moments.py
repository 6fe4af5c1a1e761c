"""Linear layers by least squares from second moments: a prior to stay near, and a rank to keep to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

RIDGES = (1e-4, 1e-2, 1.0)
"""Weights of the prior that are tried, as shares of the inputs' mean variance."""


@dataclass(frozen=True)
class Moments:
    """Second moments, in float64, of features `(n, D)` and targets `(n, O)` about their means.

    `gram` is `(D, D)`, `cross` `(D, O)`, `power` the targets' sum of squares.
    """

    gram: Tensor
    cross: Tensor
    power: Tensor

    def __add__(self, other: Moments) -> Moments:
        return Moments(self.gram + other.gram, self.cross + other.cross, self.power + other.power)

    def error(self, weight: Tensor) -> float:
        """Squared error of a weight `(O, D)`, over the targets' sum of squares."""
        transposed = weight.double().T
        fitted = (transposed * (self.gram @ transposed)).sum() - 2 * (transposed * self.cross).sum()
        smallest = torch.finfo(torch.float64).tiny
        return float(((fitted + self.power) / self.power.clamp(min=smallest)).clamp(min=0))


def moments(features: Tensor, targets: Tensor, *, about: tuple[Tensor, Tensor]) -> Moments:
    """The moments of features `(n, D)` and targets `(n, O)` about a pair of means `(D,)` and `(O,)`."""
    x, y = features - about[0], targets - about[1]
    return Moments((x.T @ x).double(), (x.T @ y).double(), y.double().square().sum())


def fit_towards(found: Moments, held_out: Moments | None, *, prior: Tensor) -> Tensor:
    """The weight `(O, D)` for these moments by ridge regression towards `prior` (Hoerl & Kennard 1970).

    The ridge is the one whose fit does best on `held_out`, from other pictures, and the prior itself is
    returned where no fit does better there; the fit is then made again on both together.
    """
    if held_out is None:
        return solve_towards(found, prior, ridge=RIDGES[1])
    errors = {ridge: held_out.error(solve_towards(found, prior, ridge=ridge)) for ridge in RIDGES}
    best = min(errors, key=errors.__getitem__)
    if not errors[best] < held_out.error(prior):
        return prior
    return solve_towards(found + held_out, prior, ridge=best)


def solve_towards(found: Moments, prior: Tensor, *, ridge: float) -> Tensor:
    """The weight `(O, D)` of least squared error plus `ridge` times the squared distance from `prior`."""
    amount = ridge * found.gram.diagonal().mean() + torch.finfo(torch.float32).tiny
    system = found.gram.clone()
    system.diagonal().add_(amount)
    right = found.cross + amount * prior.double().T
    factor, failed = torch.linalg.cholesky_ex(system)
    solution = torch.linalg.solve(system, right) if failed else torch.cholesky_solve(right, factor)
    return solution.T.to(prior.dtype)


@dataclass(frozen=True)
class Factors:
    """Two thin weights whose product stands for one: `reduce` `(r, D)` and `expand` `(O, r)`.

    `energy` is the share of the outputs' variance that this rank holds.
    """

    reduce: Tensor
    expand: Tensor
    energy: float


def shrinkage(features: Tensor) -> float:
    """How far to trust second moments of features `(n, D)`: 0 for entirely, 1 for their mean variance alone.

    From the features themselves: few pictures say little about many values (Ledoit & Wolf 2004, "A
    Well-Conditioned Estimator for Large-Dimensional Covariance Matrices").
    """
    count, values = features.shape
    products = features @ features.T if count < values else features.T @ features
    norm = float(products.double().square().sum()) / count**2
    lengths = features.double().square().sum(1)
    distance = norm - float(lengths.mean()) ** 2 / values
    noise = float(lengths.square().mean() - norm) / count
    return min(1.0, max(0.0, noise / distance)) if distance > 0 else 1.0


def principal(weight: Tensor, features: Tensor, *, shrinkage: float) -> tuple[Tensor, Tensor]:
    """Directions `(O, O)` of the outputs of `weight` `(O, D)`, as columns, and the energy `(O,)` of each.

    The largest first. `features` `(n, D)` are what the layer reads, about their mean: a singular value
    decomposition of the weight alone would count directions that no input ever takes. It has the share
    `shrinkage` in the outcome, for what so few features do not show.
    """
    outputs = (features @ weight.T).double()
    variance = features.double().square().mean()
    alone = weight.double() @ weight.double().T * variance
    seen = outputs.T @ outputs / len(features)
    energy, directions = torch.linalg.eigh((1 - shrinkage) * seen + shrinkage * alone)
    return directions.flip(1), energy.flip(0).clamp(min=0)


def factorise(weight: Tensor, directions: Tensor, energy: Tensor, *, rank: int) -> Factors:
    """The factors of this rank whose outputs are nearest to those of `weight` `(O, D)`.

    Principal components of the responses (Zhang et al. 2015, "Accelerating Very Deep Convolutional Networks
    for Classification and Detection"), which is reduced-rank regression where the weight is a least-squares
    fit (Izenman 1975).
    """
    kept = directions[:, :rank]
    total = energy.sum().clamp(min=torch.finfo(torch.float64).tiny)
    reduced = kept.T @ weight.double()
    length = reduced.norm(dim=1).clamp(min=torch.finfo(torch.float32).tiny).sqrt()
    share = float(energy[:rank].sum() / total)
    return Factors((reduced / length[:, None]).to(weight.dtype), (kept * length).to(weight.dtype), share)


def rank_for(energy: Tensor, share: float) -> int:
    """The smallest rank that holds this share of the energy `(O,)`, which falls."""
    total = float(energy.sum())
    reached: Sequence[float] = energy.cumsum(0).tolist()
    return next((rank for rank, held in enumerate(reached, start=1) if held >= share * total), len(energy))
