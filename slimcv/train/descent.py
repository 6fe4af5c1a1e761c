"""One step down: forward, loss, backward and, at the end of a group of steps, the update of the weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.fx import GraphModule

from slimcv.train import objective
from slimcv.train.average import RunningAverage
from slimcv.train.optimizer import adamw
from slimcv.train.precision import Precision, autocast
from slimcv.train.settings import FinetuneSettings

if TYPE_CHECKING:
    from slimcv.train.feed import Batch

Forward = Callable[[Tensor], Tensor]
"""From normalised pictures to logits (n, classes)."""


class Descent:
    """The optimizer, the running average and the computation of a network that is changed in place.

    `forward` computes what the network does, compiled for instance; by default it is the network itself.
    """

    def __init__(
        self,
        model: GraphModule,
        settings: FinetuneSettings,
        *,
        precision: Precision,
        forward: Forward | None = None,
    ) -> None:
        from accelerate import Accelerator

        self.parameters = list(model.parameters())
        self.peak_lr = settings.peak_lr(sum(parameter.numel() for parameter in self.parameters))
        self.optimizer = adamw(self.parameters, self.peak_lr, settings.weight_decay)
        self.average = RunningAverage(model, settings.ema) if settings.ema else None
        self._forward: Forward = model if forward is None else forward
        self._settings, self._precision = settings, precision
        self._accelerator = Accelerator(cpu=True)
        self._prepared = self._accelerator.prepare(self.optimizer)

    def step(self, batch: Batch, *, rate: float, group: int, update: bool) -> Tensor:
        """Mean loss, right answers and the norm of the gradient, float32 (3,); without `update` a norm of 0.

        The gradient of the batch is one part in `group` of an update. A gradient that is no number leaves the
        weights as they are, without anybody having to look at it: nothing here waits for a value.
        """
        with autocast(self._precision):
            logits = self._forward(batch.pictures)
        loss = objective.loss(logits, batch.labels, batch.taught, self._settings)
        self._accelerator.backward(loss if group == 1 else loss / group)
        norm = self._update(rate) if update else torch.zeros(())
        right = (logits.detach().argmax(dim=1) == batch.labels).sum()
        return torch.stack([loss.detach(), right.float(), norm])

    def _update(self, rate: float) -> Tensor:
        """Change the weights and their running average. Returns the norm of the gradient before clipping."""
        norm = self._norm()
        # The fused optimizer takes no step where this is 1; it was made for gradients scaled in fp16.
        self.optimizer.found_inf = (~torch.isfinite(norm)).float()  # type: ignore[attr-defined]
        for parameters in self.optimizer.param_groups:
            parameters["lr"] = rate
        self._prepared.step()
        self._prepared.zero_grad(set_to_none=True)
        if self.average is not None:
            self.average.update()
        return norm

    def _norm(self) -> Tensor:
        if self._settings.clip:
            clipped: Tensor = self._accelerator.clip_grad_norm_(self.parameters, self._settings.clip)
            return clipped
        gradients = [parameter.grad for parameter in self.parameters if parameter.grad is not None]
        return torch.nn.utils.get_total_norm(gradients)

    def gradients(self) -> dict[str, Tensor]:
        """What has been gathered for an update that is still to come, named `gradient/<position>`."""
        return {
            f"gradient/{index}": parameter.grad
            for index, parameter in enumerate(self.parameters)
            if parameter.grad is not None
        }

    def load_gradients(self, gradients: dict[str, Tensor]) -> None:
        """Put back what `gradients` gave, by position, each in the memory layout of its parameter."""
        for index, parameter in enumerate(self.parameters):
            found = gradients.get(str(index))
            parameter.grad = None if found is None else torch.empty_like(parameter).detach().copy_(found)
