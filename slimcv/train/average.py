"""Weights of a network as they stand: copies, and their running average."""

from __future__ import annotations

import torch
from torch import Tensor, nn

Weights = dict[str, Tensor]


def snapshot(model: nn.Module) -> Weights:
    """A copy of every parameter and buffer, each in its own memory layout."""
    return {name: value.clone() for name, value in model.state_dict().items()}


def restore(model: nn.Module, weights: Weights) -> None:
    """Write a snapshot back into the tensors it was taken from."""
    with torch.no_grad():
        for name, value in model.state_dict().items():
            value.copy_(weights[name])


def without_denormals(model: nn.Module, *, threshold: float = 1e-30) -> None:
    """Set parameters closer to zero than `threshold` to zero.

    Weight decay leaves dead channels with denormal weights, which cost some CPUs a hundred cycles a product.
    """
    with torch.no_grad():
        for parameter in model.parameters():
            # Nothing is compared with zero itself: where denormals are flushed they count as equal to it.
            parameter.masked_fill_(parameter.abs() < threshold, 0.0)


class RunningAverage:
    """Exponential moving average of parameters and float buffers, without the bias of its start.

    The bias correction is Adam's (Kingma and Ba 2015, section 3): after `t` updates the newest weights count
    `(1 - d) / (1 - d^t)`, so that the average of few steps is their mean.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.updates = 0
        self._live = model.state_dict()
        self.weights = snapshot(model)
        self._floats = [name for name, value in self._live.items() if value.is_floating_point()]

    @property
    def settled(self) -> bool:
        """Enough steps were seen for the average to be one over `1 / (1 - decay)` of them."""
        return self.updates * (1.0 - self.decay) >= 1.0

    def update(self) -> None:
        """Take in the weights as they are now."""
        self.updates += 1
        weight = (1.0 - self.decay) / (1.0 - self.decay**self.updates)
        torch._foreach_lerp_(
            [self.weights[name] for name in self._floats], [self._live[name] for name in self._floats], weight
        )

    def load(self, weights: Weights, updates: int) -> None:
        """Go on from an earlier average."""
        for name, value in self.weights.items():
            value.copy_(weights[name])
        self.updates = updates
