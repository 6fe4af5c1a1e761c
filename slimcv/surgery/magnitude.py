"""Weights of small magnitude set to zero, one by one, in blocks, or some of every group of neighbours.

Patterns are laid over a weight as a matrix (outputs, kernel positions × inputs), inputs last, so that
neighbours in a row are the same position of neighbouring input channels.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional


@torch.no_grad()
def prune(weights: Sequence[Tensor], *, share: float, block: tuple[int, int], together: bool) -> None:
    """Set this share of the weights, in blocks of rows × columns, to zero in place; zeros count.

    The smallest of all tensors `together` go, or the same share of each. The largest block of a tensor stays,
    so that no layer dies.
    """
    scores = [_scores(weight, block) for weight in weights]
    if together:
        spare = _smallest(torch.cat([score.flatten() for score in scores]), share)
        parts = list(torch.split(spare, [score.numel() for score in scores]))
    else:
        parts = [_smallest(score.flatten(), share) for score in scores]
    for weight, score, part in zip(weights, scores, parts, strict=True):
        rows, columns = _matrix(weight).shape
        wide = part.view(score.shape).repeat_interleave(block[0], 0).repeat_interleave(block[1], 1)
        weight.masked_fill_(_like(wide[:rows, :columns], weight), 0.0)


@torch.no_grad()
def thin(weights: Sequence[Tensor], *, group: int, dropped: int) -> None:
    """Set the smallest `dropped` of every `group` of neighbouring inputs to zero, in place.

    Groups stay within a kernel position; its last inputs, which do not fill a group, stay as they are.
    """
    for weight in weights:
        inputs_last = weight.movedim(1, -1)
        inputs = inputs_last.shape[-1]
        whole = inputs - inputs % group
        groups = inputs_last[..., :whole].reshape(-1, group)
        smallest = groups.abs().argsort(dim=1, stable=True)[:, :dropped]
        mask = torch.zeros_like(groups, dtype=torch.bool).scatter_(1, smallest, True)
        spare = functional.pad(mask.view(*inputs_last.shape[:-1], whole), (0, inputs - whole))
        weight.masked_fill_(spare.movedim(-1, 1), 0.0)


def sparsity(weights: Sequence[Tensor]) -> float:
    """The share of exact zeros."""
    zeros = sum(int((weight == 0).sum()) for weight in weights)
    return zeros / max(1, sum(weight.numel() for weight in weights))


def _matrix(weight: Tensor) -> Tensor:
    return weight.movedim(1, -1).flatten(1)


def _like(matrix: Tensor, weight: Tensor) -> Tensor:
    """A matrix in the shape of the weight it was made from."""
    return matrix.view(weight.shape[0], *weight.shape[2:], weight.shape[1]).movedim(-1, 1)


def _scores(weight: Tensor, block: tuple[int, int]) -> Tensor:
    """The mean magnitude of each block; the largest counts as infinite."""
    matrix = _matrix(weight).abs()
    below, beside = -matrix.shape[0] % block[0], -matrix.shape[1] % block[1]
    shape = (matrix.shape[0] + below) // block[0], block[0], -1, block[1]
    sums = functional.pad(matrix, (0, beside, 0, below)).view(shape).sum((1, 3))
    whole = functional.pad(torch.ones_like(matrix), (0, beside, 0, below)).view(shape).sum((1, 3))
    score = sums / whole
    score.view(-1)[score.argmax()] = torch.inf
    return score


def _smallest(scores: Tensor, share: float) -> Tensor:
    """Where the smallest of these scores are; of equal ones the first."""
    count = min(round(share * len(scores)), int(torch.isfinite(scores).sum()))
    if not count:
        return torch.zeros_like(scores, dtype=torch.bool)
    bound = scores.kthvalue(count).values
    found = scores < bound
    ties = (scores == bound).nonzero().flatten()
    found[ties[: count - int(found.sum())]] = True
    return found
