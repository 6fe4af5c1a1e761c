"""Least-squares fits of linear layers to what the layers they replace gave on pictures."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

RIDGE = 1e-4
"""Weight of the prior in the fit of a separable pair, as a share of the inputs' mean variance."""

LARGEST_SYSTEM = 5000
"""Depthwise kernels are fitted too where they have at most this many values: memory grows with the square."""


def fit_linear(features: Tensor, targets: Tensor, *, prior: Tensor) -> tuple[Tensor, Tensor]:
    """Weight `(K, C)` and bias `(K,)` from features `(n, C)` to targets `(n, K)`.

    Ridge regression towards the weight `prior`; the ridge is chosen by generalised cross-validation
    (Golub, Heath & Wahba 1979).
    """
    x, y = features.double(), targets.double()
    mean_x, mean_y = x.mean(0), y.mean(0)
    x, y = x - mean_x, y - mean_y
    left, singular, right = torch.linalg.svd(x, full_matrices=False)
    rest = y - x @ prior.double().T
    projected = left.T @ rest
    outside = rest.square().sum() - projected.square().sum()
    best, kept = float("inf"), torch.zeros_like(singular)
    for exponent in range(-6, 3):
        ridge = singular[0].square() * 10.0**exponent + torch.finfo(torch.float64).tiny
        shrink = singular.square() / (singular.square() + ridge)
        misfit = outside + ((1 - shrink)[:, None] * projected).square().sum()
        score = float(misfit / (len(x) - 1 - shrink.sum()).clamp(min=1e-3).square())
        if score < best:
            best, kept = score, singular / (singular.square() + ridge)
    weight = prior.double() + (right.T @ (kept[:, None] * projected)).T
    return weight, mean_y - weight @ mean_x


@dataclass(frozen=True)
class Pair:
    """Depthwise kernels `(r, C, T)`, pointwise weights `(O, r, C)` and bias `(O,)`; T = kh * kw."""

    depthwise: Tensor
    pointwise: Tensor
    bias: Tensor

    def __call__(self, patches: Tensor) -> Tensor:
        """Outputs `(n, O)` for patches `(n, C, T)`."""
        between = torch.einsum("nct,rct->nrc", patches, self.depthwise)
        return between.flatten(1) @ self.pointwise.flatten(1).T + self.bias


def fit_pair(patches: Tensor, targets: Tensor, *, start: Pair, rounds: int) -> Pair:
    """The pair whose outputs on `patches` `(n, C, T)` are nearest to `targets` `(n, O)`, from `start` on.

    Pointwise weights and bias by ridge regression towards those of `start` (as He et al. 2017, "Channel
    Pruning", reconstruct a layer); with `rounds`, the depthwise kernels and they are solved for
    in turn that often.
    """
    if start.depthwise.numel() > LARGEST_SYSTEM:
        rounds = 0
    mean_x, mean_y = patches.mean(0), targets.mean(0)
    x, y = patches - mean_x, targets - mean_y
    depthwise, pointwise = start.depthwise.double(), start.pointwise.double()
    if rounds == 0:
        between = torch.einsum("nct,rct->nrc", x, start.depthwise).flatten(1)
        pointwise = _solve_pointwise((between.T @ between).double(), (between.T @ y).double(), pointwise)
    else:
        x = x.flatten(1)
        gram = (x.T @ x).double().reshape(*patches.shape[1:], *patches.shape[1:])
        cross = (x.T @ y).double().reshape(*patches.shape[1:], -1)
        for _ in range(rounds):
            pointwise = _pointwise_from_moments(gram, cross, depthwise=depthwise, pointwise=pointwise)
            depthwise = _depthwise_from_moments(gram, cross, depthwise=depthwise, pointwise=pointwise)
        pointwise = _pointwise_from_moments(gram, cross, depthwise=depthwise, pointwise=pointwise)
        length = depthwise.norm(dim=2).clamp(min=torch.finfo(torch.float32).tiny)
        depthwise, pointwise = depthwise / length[..., None], pointwise * length
    pair = Pair(depthwise.float(), pointwise.float(), torch.zeros(len(pointwise)))
    return Pair(pair.depthwise, pair.pointwise, mean_y - pair(mean_x[None])[0])


def _pointwise_from_moments(gram: Tensor, cross: Tensor, *, depthwise: Tensor, pointwise: Tensor) -> Tensor:
    size = depthwise.shape[0] * depthwise.shape[1]
    half = torch.einsum("ctdu,sdu->ctsd", gram, depthwise)
    between = torch.einsum("ctsd,rct->rcsd", half, depthwise).reshape(size, size)
    onward = torch.einsum("cto,rct->rco", cross, depthwise).reshape(size, -1)
    return _solve_pointwise(between, onward, pointwise)


def _depthwise_from_moments(gram: Tensor, cross: Tensor, *, depthwise: Tensor, pointwise: Tensor) -> Tensor:
    size = depthwise.numel()
    weights = torch.einsum("orc,osd->rcsd", pointwise, pointwise)
    system = torch.einsum("rcsd,ctdu->rctsdu", weights, gram).reshape(size, size)
    right = torch.einsum("orc,cto->rct", pointwise, cross).reshape(size)
    return _solve(system, right[:, None], depthwise.reshape(size, 1)).reshape(depthwise.shape)


def _solve_pointwise(system: Tensor, right: Tensor, prior: Tensor) -> Tensor:
    return _solve(system, right, prior.flatten(1).T).T.reshape(prior.shape)


def _solve(system: Tensor, right: Tensor, prior: Tensor) -> Tensor:
    """The solution of `system @ x = right`, drawn towards `prior` by RIDGE; `system` is symmetric."""
    ridge = RIDGE * system.diagonal().mean() + torch.finfo(torch.float32).tiny
    system.diagonal().add_(ridge)
    factor, failed = torch.linalg.cholesky_ex(system)
    if failed:
        solution: Tensor = torch.linalg.solve(system, right + ridge * prior)
        return solution
    return torch.cholesky_solve(right + ridge * prior, factor)
