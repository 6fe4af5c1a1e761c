"""One step down: forward, loss, backward and, at the end of a group of steps, the update of the weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.fx import GraphModule

from slimcv.train import objective
from slimcv.train.average import RunningAverage, restore
from slimcv.train.kept import Kept
from slimcv.train.optimizer import adamw, by_name, load_moments
from slimcv.train.precision import Precision, autocast
from slimcv.train.processes.group import ALONE, Processes
from slimcv.train.settings import FinetuneSettings
from slimcv.train.state import State

if TYPE_CHECKING:
    from slimcv.train.feed import Batch

STATISTICS = ("running_mean", "running_var")
"""How PyTorch's batch norms call the means and variances that they gather while they train."""

Forward = Callable[[Tensor], Tensor]
"""From normalised pictures to logits (n, classes)."""


class Descent:
    """The optimizer, the running average and the computation of a network that is changed in place.

    `forward` computes what the network does, compiled for instance; by default it is the network itself.
    With several `processes` every one of them takes each step, with its share of the batch; after an update
    all have the same weights.
    """

    def __init__(
        self,
        model: GraphModule,
        settings: FinetuneSettings,
        *,
        precision: Precision,
        forward: Forward | None = None,
        processes: Processes = ALONE,
    ) -> None:
        from accelerate import Accelerator

        self._model, self._processes = model, processes
        statistics = {name: value for name, value in model.named_buffers() if name.endswith(STATISTICS)}
        self._statistics = [statistics[name] for name in sorted(statistics)]
        self.parameters = [*by_name(model).values()]
        self.peak_lr = settings.peak_lr(sum(parameter.numel() for parameter in self.parameters))
        fused, decay = settings.fused_optimizer, settings.weight_decay
        self.optimizer = adamw(self.parameters, self.peak_lr, decay, fused=fused)
        self.average = RunningAverage(model, settings.ema) if settings.ema else None
        self.kept = Kept(model, settings)
        self._forward: Forward = model if forward is None else forward
        self._settings, self._precision = settings, precision
        threads = torch.get_num_threads()
        self._accelerator = Accelerator(cpu=True)
        torch.set_num_threads(threads)  # Under a launcher accelerate sets another number.
        self._prepared = self._accelerator.prepare(self.optimizer)

    def step(self, batch: Batch, *, rate: float, group: int, update: bool, share: float = 0.0) -> Tensor:
        """Mean loss, right answers and the norm of the gradient, float32 (3,); without `update` a norm of 0.

        They are those of the whole batch, the shares of other processes included. Its gradient is one part in
        `group` of an update; `share` of the training lies behind. A gradient that is no number leaves the
        weights as they are; with the fused optimizer without anybody having to look at it.
        """
        with autocast(self._precision):
            logits = self._forward(batch.pictures)
        loss = objective.loss(logits, batch.labels, batch.taught, self._settings)
        weight = group / batch.share
        self._accelerator.backward(loss if weight == 1 else loss / weight)
        right = (logits.detach().argmax(dim=1) == batch.labels).sum()
        told = torch.stack([loss.detach() * batch.share, right.float()])
        if self._processes.count > 1:
            self._add_up(told, share=batch.share, update=update)
        norm = self._update(rate, share) if update else torch.zeros(1)
        return torch.cat([told, norm.reshape(1)])

    def _add_up(self, told: Tensor, *, share: float, update: bool) -> None:
        """What this process found, with what the others did; gradients and statistics before an update only.

        Each batch norm trains with the mean and variance of its own share. What they gather for later is the
        mean over the processes.
        """
        if not update:
            self._processes.add_up([told])
            return
        for value in self._statistics:
            value.mul_(share)
        gradients = [parameter.grad for parameter in self.parameters if parameter.grad is not None]
        self._processes.add_up([told, *gradients, *self._statistics])

    def _update(self, rate: float, share: float) -> Tensor:
        """Change the weights and their running average. Returns the norm of the gradient before clipping."""
        self.kept.before_update()
        norm = self._norm()
        for parameters in self.optimizer.param_groups:
            parameters["lr"] = rate
        if self._settings.fused_optimizer:
            # It takes no step where this is 1; it was made for gradients scaled in fp16.
            self.optimizer.found_inf = (~torch.isfinite(norm)).float()  # type: ignore[attr-defined]
            self._prepared.step()
        elif torch.isfinite(norm):
            self._prepared.step()
        self._prepared.zero_grad(set_to_none=True)
        self.kept.after_update(share)
        if self.average is not None:
            self.average.update()
            self.kept.in_average(self.average.weights)
        return norm

    def _norm(self) -> Tensor:
        if self._settings.clip:
            clipped: Tensor = self._accelerator.clip_grad_norm_(self.parameters, self._settings.clip)
            return clipped
        gradients = [parameter.grad for parameter in self.parameters if parameter.grad is not None]
        return torch.nn.utils.get_total_norm(gradients)

    def load(self, state: State) -> None:
        """Go on from the weights, moments and running average of an earlier training."""
        restore(self._model, state.part("model"))
        load_moments(self.optimizer, state)
        self.kept.progress = state.values["pruned"]
        if self.average is not None:
            self.average.load(state.part("average"), state.values["updates"])

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
