"""One fine-tuning on its way: weights, optimizer, running average and history, call by call."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import islice
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule

from slimcv.data import Split
from slimcv.errors import Rejected
from slimcv.models import capture
from slimcv.step import InputSpec
from slimcv.train.average import Weights, restore, snapshot
from slimcv.train.descent import Descent
from slimcv.train.evaluation import Score, evaluate
from slimcv.train.feed import NETWORK, Batch, Feed, step_seed
from slimcv.train.optimizer import moments
from slimcv.train.processes.group import ALONE, Order, Processes
from slimcv.train.progress import Progress
from slimcv.train.result import Epoch
from slimcv.train.schedule import Allowance, Schedule
from slimcv.train.settings import FinetuneSettings
from slimcv.train.state import State
from slimcv.train.tally import Tally

OUT_OF_TIME, ALL_DONE = "out of time", "all epochs done"

log = logging.getLogger("slimcv")


class DivergedError(Rejected):
    """The loss or the gradient is no number any more."""


@dataclass(frozen=True)
class Best:
    """The best weights so far; `score` is None where there is no tuning split to tell by."""

    weights: Weights
    score: Score | None
    epoch: int = 0
    averaged: bool = False


class Training:
    """The training of one network, which is changed in place. `best` holds the weights to keep.

    Between two calls of `advance` its state can be taken. A training that is gone on with from there ends
    with the same weights as an unbroken one, on one thread bit for bit. Only where the wall time is limited
    (a budget, a deadline) this is not promised: the rate then falls with the time that is used up.

    With several `processes` it is rank 0's, and tells the others what to do (slimcv.train.processes).
    """

    def __init__(
        self,
        model: GraphModule,
        feed: Feed,
        tuning: Split,
        input: InputSpec,
        *,
        descent: Descent,
        settings: FinetuneSettings,
        allowance: Allowance,
        seed: int,
        processes: Processes = ALONE,
    ) -> None:
        self._processes = processes
        self._model, self._feed, self._tuning, self._input = model, feed, tuning, input
        self._descent, self._average = descent, descent.average
        self._settings, self._allowance, self._seed = settings, allowance, seed
        self._schedule = Schedule(settings.schedule, descent.peak_lr, settings.warmup)
        self._progress = Progress(at_once=True)
        self._call_seconds = 0.0
        self._tally: Tally | None = None
        self._batches: Iterator[Batch] = iter(())
        self._rate = 0.0
        self.epoch = 0
        self.step = 0
        self.stopped = ""
        self.history: list[Epoch] = []
        self.best = Best(snapshot(model), None)

    @property
    def peak_lr(self) -> float:
        """The rate after warm-up."""
        return self._schedule.peak

    @property
    def out_of_time(self) -> bool:
        """Another call would not end in time."""
        return self._allowance.left() <= self._call_seconds

    @property
    def can_be_kept(self) -> bool:
        """Its state is all there is: between two updates other processes have gradients of their own."""
        return self._processes.count == 1 or self.step % self._settings.accumulate == 0

    def advance(self) -> None:
        """Take the next few steps and, where they end an epoch, judge what came out.

        Sets `stopped` to the reason where there is nothing more to do. Raises DivergedError.
        """
        if not self.history:
            self._judge(Epoch(number=0, share=0.0, lr=0.0, seconds=0.0))
            self._allowance.begin_training()
        if self._tally is None and self.epoch >= self._settings.epochs:
            self.stopped = ALL_DONE
        elif self.out_of_time:
            self._end_epoch()
            self.stopped = OUT_OF_TIME
        else:
            self._call()
            if self.step == self._feed.steps:
                self._end_epoch()
                self.stopped = self._reason_to_stop()

    def _reason_to_stop(self) -> str:
        patience = self._settings.early_stopping
        if self.epoch >= self._settings.epochs:
            return ALL_DONE
        if patience and self.epoch - self.best.epoch >= patience and len(self._tuning):
            return f"no gain on the tuning split for {patience} epochs"
        return ""

    def _call(self) -> None:
        """`steps_per_call` steps, or as many as the epoch still has; only then their losses are looked at."""
        begun = time.perf_counter()
        number = self.epoch + 1
        if self._tally is None:
            self._tally = Tally(begun)
            self._batches = self._feed.epoch(number)
        capture.set_training(self._model, True)
        first, outcomes, counts = self.step, [], []
        for batch in islice(self._batches, self._settings.steps_per_call):
            outcomes.append(self._one_step(batch, number))
            counts.append(batch.whole)
            self.step += 1
        for step, ((loss, right, norm), count) in enumerate(
            zip(torch.stack(outcomes).tolist(), counts, strict=True), start=first + 1
        ):
            self._check(loss, norm, f"in epoch {number}, step {step}")
            self._tally.add(loss, int(right), count)
        self._call_seconds = time.perf_counter() - begun
        if self._progress.due:
            done = (number - 1 + self.step / self._feed.steps) / self._settings.epochs
            self._progress.tell(self._described(number, self._tally), share=done)

    def _one_step(self, batch: Batch, number: int) -> Tensor:
        settings, steps = self._settings, self._feed.steps
        first = self.step - self.step % settings.accumulate
        by_steps = (number - 1 + first / steps) / settings.epochs
        share = max(by_steps, self._allowance.share())
        self._rate = self._schedule.rate(share)
        torch.default_generator.manual_seed(step_seed(self._seed, number, self.step, stream=NETWORK))
        group = min(settings.accumulate, steps - first)
        update = (self.step + 1) % settings.accumulate == 0 or self.step + 1 == steps
        self._processes.order(Order.STEP, number, self.step, self._rate, group, update, share)
        return self._descent.step(batch, rate=self._rate, group=group, update=update, share=share)

    def _check(self, loss: float, norm: float, where: str) -> None:
        if math.isfinite(loss) and math.isfinite(norm):
            return
        what = f"the gradient is {norm}" if math.isfinite(loss) else f"the training loss is {loss}"
        precision = "" if self._settings.precision == "fp32" else ", or precision: fp32"
        raise DivergedError(
            f"{what} {where}", f"set a lower lr (it was {self._schedule.peak:.2g}){precision}"
        )

    def _end_epoch(self) -> None:
        """Close the epoch that was begun, whole or not, and judge it."""
        tally = self._tally
        if tally is None:
            return
        whole = tally.seen == self._feed.count
        number = self.epoch + 1
        self.epoch += whole
        self.step, self._tally = 0, None
        self._judge(
            Epoch(
                number=number,
                share=1.0 if whole else tally.seen / self._feed.count,
                lr=self._rate,
                seconds=tally.seconds,
                loss=tally.loss,
                train_top1=tally.top1,
            )
        )

    def _judge(self, epoch: Epoch) -> None:
        """Score the weights and their running average on the tuning split, and keep the best so far."""
        begun = time.perf_counter()
        raw = average = None
        if not (len(self._tuning) and self._descent.kept.settled):
            # With weights still to be taken out it is no candidate, however good.
            self.best = Best(snapshot(self._model), None, epoch.number)
        if len(self._tuning):
            raw = self._score(averaged=False)
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
        score = self._score(averaged=True)
        self._consider(score, number, averaged=True)
        restore(self._model, own)
        return score

    def _score(self, *, averaged: bool) -> Score:
        self._processes.order(Order.SCORE, averaged)
        return evaluate(self._model, self._tuning, self._input, processes=self._processes)

    def _consider(self, score: Score, epoch: int, *, averaged: bool) -> None:
        if self._descent.kept.settled and score.better_than(self.best.score):
            self.best = Best(snapshot(self._model), score, epoch, averaged)

    def _described(self, number: int, tally: Tally) -> str:
        epochs = self._settings.epochs
        speed = tally.seen / max(tally.seconds, 1e-9)
        ahead = ((epochs - number + 1) * self._feed.count - tally.seen) / speed
        ahead += (epochs - number + 1) * self._allowance.reserve
        minutes, seconds = divmod(round(min(ahead, max(0.0, self._allowance.left()))), 60)
        return (
            f"epoch {number}/{epochs}, step {self.step}/{self._feed.steps}: loss {tally.loss:.3f}, "
            f"top-1 {tally.top1:.1f} %, {speed:.0f} images/s, ETA {minutes}:{seconds:02d}"
        )

    def state(self) -> State:
        """All that another process needs to go on from here; only the best weights where nothing is left."""
        best, schedule, allowance = self.best, self._schedule, self._allowance
        values: dict[str, Any] = {
            "stopped": self.stopped,
            "epoch": self.epoch,
            "step": self.step,
            "tally": self._tally and self._tally.as_json(),
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
            "pruned": self._descent.kept.progress,
            "reserve": allowance.reserve,
            "elapsed": allowance.elapsed(),
            "trained": allowance.trained(),
        }
        tensors = _under("best", best.weights)
        if not self.stopped:
            tensors |= _under("model", self._model.state_dict()) | moments(self._descent.optimizer)
            tensors |= self._descent.gradients()
            if self._average is not None:
                tensors |= _under("average", self._average.weights)
        return State(tensors, values)

    def resume(self, state: State) -> None:
        """Go on where `state` was taken, of a training with the same settings, network and data."""
        values = state.values
        weights = self.best.weights
        for name, value in state.part("best").items():
            weights[name].copy_(value)
        kept = values["best"]
        self.best = Best(weights, kept["score"] and Score(**kept["score"]), kept["epoch"], kept["averaged"])
        for name, value in values["schedule"].items():
            setattr(self._schedule, name, value)
        self.epoch, self.step, self.stopped = values["epoch"], values["step"], values["stopped"]
        self.history = [Epoch(**epoch) for epoch in values["history"]]
        self._allowance.reserve = values["reserve"]
        self._allowance.begin_training()
        if self.stopped:
            log.info("the training was done: its best weights are taken")
            return
        self._descent.load(state)
        self._descent.load_gradients(state.part("gradient"))
        if values["tally"] is not None:
            self._tally = Tally.from_json(values["tally"])
            self._batches = self._feed.epoch(self.epoch + 1, first=self.step)
        log.info("going on with an interrupted training at epoch %d, step %d", self.epoch + 1, self.step + 1)


def _under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {f"{prefix}/{name}": value for name, value in tensors.items()}
