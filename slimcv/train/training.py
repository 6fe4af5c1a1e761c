"""One fine-tuning on its way: weights, optimizer, running average and history, epoch by epoch."""

from __future__ import annotations

import logging
import math
import time
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.fx import GraphModule

from slimcv.data import Split
from slimcv.errors import Rejected
from slimcv.models import capture
from slimcv.step import InputSpec
from slimcv.train import objective
from slimcv.train.average import RunningAverage, Weights, restore, snapshot
from slimcv.train.evaluation import Score, evaluate
from slimcv.train.feed import Batch, Feed
from slimcv.train.optimizer import adamw, load_moments, moments
from slimcv.train.precision import Precision, autocast
from slimcv.train.result import Epoch
from slimcv.train.schedule import Allowance, Schedule
from slimcv.train.settings import FinetuneSettings
from slimcv.train.state import State

LOG_SECONDS = 5.0

log = logging.getLogger("slimcv")


class DivergedError(Rejected):
    """The loss is no number any more."""


@dataclass(frozen=True)
class Best:
    """The best weights so far; `score` is None where there is no tuning split to tell by."""

    weights: Weights
    score: Score | None
    epoch: int = 0
    averaged: bool = False


@dataclass
class Tally:
    """What an epoch has come to so far: means over the pictures `seen` since `begun`."""

    begun: float
    seen: int = 0
    right: int = 0
    total_loss: float = 0.0

    @property
    def loss(self) -> float:
        """Mean loss a picture."""
        return self.total_loss / self.seen

    @property
    def top1(self) -> float:
        """Percent."""
        return 100.0 * self.right / self.seen

    def add(self, loss: float, right: int, count: int) -> None:
        """Take in a batch's mean loss and its number of right answers."""
        self.seen += count
        self.right += right
        self.total_loss += loss * count


class Training:
    """The training of one network, which is changed in place. `best` holds the weights to keep."""

    def __init__(
        self,
        model: GraphModule,
        feed: Feed,
        tuning: Split,
        input: InputSpec,
        *,
        settings: FinetuneSettings,
        allowance: Allowance,
        precision: Precision,
        seed: int,
    ) -> None:
        from accelerate import Accelerator

        parameters = list(model.parameters())
        peak = settings.peak_lr(sum(parameter.numel() for parameter in parameters))
        self._accelerator = Accelerator(cpu=True)
        self._optimizer = self._accelerator.prepare(adamw(parameters, peak, settings.weight_decay))
        self._parameters = parameters
        self._model, self._feed, self._tuning, self._input = model, feed, tuning, input
        self._settings, self._allowance, self._precision, self._seed = settings, allowance, precision, seed
        self._schedule = Schedule(settings.schedule, peak, settings.warmup)
        self._average = RunningAverage(model, settings.ema) if settings.ema else None
        self._step_seconds = 0.0
        self._told = 0.0
        self.epoch = 0
        self.history: list[Epoch] = []
        self.best = Best(snapshot(model), None)

    @property
    def peak_lr(self) -> float:
        """The rate after warm-up."""
        return self._schedule.peak

    def train(self) -> str:
        """Train for one epoch and judge what came out. Says why there will be no other one, or nothing."""
        if not self.history:
            self._judge(Epoch(number=0, share=0.0, lr=0.0, seconds=0.0))
            self._allowance.begin_training()
        if self.epoch >= self._settings.epochs:
            return "all epochs done"
        if self._out_of_time():
            return "out of time"
        self._judge(self._one_epoch(self.epoch + 1))
        patience = self._settings.early_stopping
        if self.epoch >= self._settings.epochs:
            return "all epochs done"
        if patience and self.epoch - self.best.epoch >= patience and len(self._tuning):
            return f"no gain on the tuning split for {patience} epochs"
        return ""

    def _one_epoch(self, number: int) -> Epoch:
        """Train until the epoch or the time is over. Raises DivergedError."""
        settings, feed, tally, rate = self._settings, self._feed, Tally(time.perf_counter()), 0.0
        torch.manual_seed(int(np.random.SeedSequence((self._seed, number)).generate_state(1)[0]))
        capture.set_training(self._model, True)
        for step, batch in enumerate(feed.epoch(number)):
            if self._out_of_time():
                break
            begun = time.perf_counter()
            by_steps = (number - 1 + (step - step % settings.accumulate) / feed.steps) / settings.epochs
            rate = self._schedule.rate(max(by_steps, self._allowance.share()))
            update = (step + 1) % settings.accumulate == 0 or step + 1 == feed.steps
            loss, right = self._step(batch, rate, group=self._group(step), update=update)
            if not math.isfinite(loss):
                raise DivergedError(
                    f"the training loss is {loss} in epoch {number}, step {step + 1}",
                    f"set a lower lr; it was {self._schedule.peak:.2g}",
                )
            tally.add(loss, right, len(batch.labels))
            self._step_seconds = time.perf_counter() - begun
            self._tell(number, step, tally)
        whole = tally.seen == feed.count
        self.epoch += whole
        return Epoch(
            number=number,
            share=1.0 if whole else tally.seen / feed.count,
            lr=rate,
            seconds=time.perf_counter() - tally.begun,
            loss=tally.loss if tally.seen else None,
            train_top1=tally.top1 if tally.seen else None,
        )

    def _step(self, batch: Batch, rate: float, *, group: int, update: bool) -> tuple[float, int]:
        """Loss and right answers of one batch, whose gradient is one part in `group` of an update."""
        with autocast(self._precision):
            logits = self._model(batch.pictures)
        loss = objective.loss(logits, batch.labels, batch.taught, self._settings)
        value = loss.item()
        if not math.isfinite(value):
            return value, 0
        self._accelerator.backward(loss if group == 1 else loss / group)
        if update:
            if self._settings.clip:
                self._accelerator.clip_grad_norm_(self._parameters, self._settings.clip)
            for parameters in self._optimizer.param_groups:
                parameters["lr"] = rate
            self._optimizer.step()
            self._optimizer.zero_grad(set_to_none=True)
            if self._average is not None:
                self._average.update()
        return value, int((logits.detach().argmax(dim=1) == batch.labels).sum())

    def _group(self, step: int) -> int:
        """How many steps share the update this one belongs to; the last group of an epoch may be smaller."""
        accumulate = self._settings.accumulate
        first = step - step % accumulate
        return min(accumulate, self._feed.steps - first)

    def _out_of_time(self) -> bool:
        return self._allowance.left() <= self._step_seconds

    def _judge(self, epoch: Epoch) -> None:
        """Score the weights and their running average on the tuning split, and keep the best so far."""
        begun = time.perf_counter()
        raw = average = None
        if not len(self._tuning):
            self.best = Best(snapshot(self._model), None, epoch.number)
        else:
            raw = evaluate(self._model, self._tuning, self._input)
            self._consider(raw, epoch.number, averaged=False)
            average = self._judge_average(epoch.number)
            self._schedule.observe(raw.loss)
        judged = epoch.judged(raw, average)
        self.history.append(judged)
        sweeps = (1 if raw else 0) + (1 if average else 0)
        each = (time.perf_counter() - begun) / max(1, sweeps)
        self._allowance.reserve = each * (2 if self._average else 1) * 1.1
        log.info("%s", judged.describe(self._settings.epochs))

    def _judge_average(self, number: int) -> Score | None:
        if self._average is None or not self._average.settled:
            return None
        own = snapshot(self._model)
        restore(self._model, self._average.weights)
        score = evaluate(self._model, self._tuning, self._input)
        self._consider(score, number, averaged=True)
        restore(self._model, own)
        return score

    def _consider(self, score: Score, epoch: int, *, averaged: bool) -> None:
        if score.better_than(self.best.score):
            self.best = Best(snapshot(self._model), score, epoch, averaged)

    def _tell(self, number: int, step: int, tally: Tally) -> None:
        now = time.perf_counter()
        if now - self._told < LOG_SECONDS:
            return
        self._told = now
        speed = tally.seen / (now - tally.begun)
        ahead = (self._settings.epochs - number + 1) * self._feed.count - tally.seen
        eta = min(ahead / speed, max(0.0, self._allowance.left()))
        log.info(
            "epoch %d/%d, step %d/%d: loss %.3f, top-1 %.1f %%, %.0f images/s, ETA %d:%02d",
            number, self._settings.epochs, step + 1, self._feed.steps,
            tally.loss, tally.top1, speed, *divmod(round(eta), 60),
        )  # fmt: skip

    def state(self) -> State:
        """All that another process needs to go on after the last whole epoch."""
        tensors = _under("model", self._model.state_dict()) | _under("best", self.best.weights)
        tensors |= moments(self._optimizer)
        if self._average is not None:
            tensors |= _under("average", self._average.weights)
        schedule, best = self._schedule, self.best
        values: dict[str, Any] = {
            "epoch": self.epoch,
            "history": [asdict(epoch) for epoch in self.history],
            "best": {
                "score": best.score and asdict(best.score),
                "epoch": best.epoch,
                "averaged": best.averaged,
            },
            "schedule": {
                "scale": schedule.scale,
                "lowest_loss": schedule.lowest_loss,
                "waited": schedule.waited,
            },
            "updates": self._average.updates if self._average else 0,
            "reserve": self._allowance.reserve,
            "elapsed": self._allowance.elapsed(),
            "trained": self._allowance.trained(),
        }
        return State(tensors, values)

    def resume(self, state: State) -> None:
        """Go on where `state` was taken, of a training with the same settings, network and data."""
        values = state.values
        restore(self._model, state.part("model"))
        if self._average is not None:
            self._average.load(state.part("average"), values["updates"])
        load_moments(self._optimizer, state)
        weights = self.best.weights
        for name, value in state.part("best").items():
            weights[name].copy_(value)
        kept = values["best"]
        self.best = Best(weights, kept["score"] and Score(**kept["score"]), kept["epoch"], kept["averaged"])
        for name, value in values["schedule"].items():
            setattr(self._schedule, name, value)
        self.epoch = values["epoch"]
        self.history = [Epoch(**epoch) for epoch in values["history"]]
        self._allowance.reserve = values["reserve"]
        self._allowance.begin_training()
        log.info("going on after epoch %d of an interrupted training", self.epoch)


def _under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {f"{prefix}/{name}": value for name, value in tensors.items()}
