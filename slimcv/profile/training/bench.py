"""Training steps of a network, taken to be timed: with slimcv.train's own parts, in the way it trains."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from time import perf_counter, process_time

import torch
from torch import Tensor
from torch.fx import GraphModule

from slimcv.data import Split
from slimcv.models import capture
from slimcv.profile.backward import backward_by_kind
from slimcv.profile.contest import Contest, Way, contest
from slimcv.profile.training.sample import part
from slimcv.step import InputSpec
from slimcv.train import objective
from slimcv.train.descent import Descent
from slimcv.train.feed import Batch, Feed
from slimcv.train.precision import Precision, autocast
from slimcv.train.settings import FinetuneSettings

RATE = 1e-6
"""A learning rate that leaves the weights about as they are."""
MOST_STEPS, FEWEST_STEPS = 20, 2
READINGS = 3


@dataclass(frozen=True)
class Steps:
    """Milliseconds of each part of a step, medians over `count` steps; `busy_threads` as an average.

    `optimizer_ms` is this step's share of an update, which may be shared with others.
    """

    feed_ms: float
    forward_ms: float
    backward_ms: float
    optimizer_ms: float
    waiting_ms: float
    busy_threads: float
    count: int

    @property
    def around_ms(self) -> float:
        """What a step costs whatever the number of its pictures."""
        return self.optimizer_ms + self.waiting_ms


@dataclass
class _Clock:
    """When the parts of the step under way ended."""

    forward: float = 0.0
    loss: float = 0.0
    backward: float = 0.0


class Bench:
    """A private network in training mode with the pictures it is fed. `precision` is what it trains in."""

    def __init__(
        self, model: GraphModule, split: Split, input: InputSpec, settings: FinetuneSettings, *, classes: int
    ) -> None:
        self._model, self._split, self._input, self._settings = model, split, input, settings
        self._classes = classes
        self._parts: dict[int, Split] = {}
        self._pictures = next(self._feed(settings, len(split)).epoch(1))
        self.precision: Precision = "fp32"
        capture.set_training(model, True)

    def batch(self, count: int) -> Batch:
        """The first pictures of the sample, with answers of a teacher who knows nothing."""
        pictures, labels = self._pictures.pictures[:count], self._pictures.labels[:count]
        return self._taught(Batch(pictures, labels, None))

    def gradient_ms(self, count: int) -> float:
        """Forward and backward on the first `count` pictures, as they lie in memory."""
        batch = self.batch(count)
        begun = perf_counter()
        torch.autograd.backward(self._loss(batch))
        spent = 1000 * (perf_counter() - begun)
        self._model.zero_grad(set_to_none=True)
        return spent

    def formats(self, count: int, *, seconds: float) -> Contest:
        """A gradient in channels_last, as slimcv trains, against one with contiguous tensors."""
        batch = self.batch(count)
        ways = {}
        for name, layout in (("channels_last", torch.channels_last), ("contiguous", torch.contiguous_format)):
            pictures = batch.pictures.contiguous(memory_format=layout)
            ways[name] = Way(
                self._gradient(dataclasses.replace(batch, pictures=pictures)), self._layout(layout)
            )
        try:
            return contest(ways, seconds=seconds)
        finally:
            self._layout(torch.channels_last)()

    def backward(self, count: int) -> dict[str, float]:
        """Milliseconds of the backward computation by kind of layer."""
        found = backward_by_kind(self._loss(self.batch(count)))
        self._model.zero_grad(set_to_none=True)
        return found

    def feed_ms(self, count: int, *, without: str = "") -> float:
        """Reading and changing a batch at random, `without` one of the changes."""
        off = {without: 0.0} if without else {}
        feed = self._feed(self._settings.model_copy(update=off), count)
        times = []
        for number in range(1, 1 + READINGS):
            begun = perf_counter()
            next(feed.epoch(number))
            times.append(1000 * (perf_counter() - begun))
        return median(times)

    def steps(self, count: int, *, seconds: float) -> Steps:
        """Whole steps of `count` pictures for so long, after one that does not count."""
        settings = self._settings.model_copy(update={"batch": count})
        clock = _Clock()
        descent = Descent(self._model, settings, precision=self.precision, forward=self._watched(clock))
        hooks = [
            parameter.register_post_accumulate_grad_hook(  # type: ignore[no-untyped-call]
                lambda _: _stamp(clock, "backward")
            )
            for parameter in self._model.parameters()
        ]
        rows: list[tuple[float, ...]] = []
        batches = itertools.chain.from_iterable(map(self._feed(settings, count).epoch, itertools.count(1)))
        begun = ended = perf_counter()
        busy = process_time()
        while len(rows) < FEWEST_STEPS + 1 or (len(rows) <= MOST_STEPS and ended - begun < seconds):
            if len(rows) == 1:
                begun, busy = ended, process_time()
            started = ended
            batch = self._taught(next(batches))
            fed = perf_counter()
            descent.step(batch, rate=RATE, group=1, update=True)
            ended = perf_counter()
            parts = (
                fed - started,
                clock.forward - fed,
                clock.backward - clock.loss,
                ended - clock.backward,
            )
            rows.append((*parts, ended - started - sum(parts)))
        for hook in hooks:
            hook.remove()
        self._model.zero_grad(set_to_none=True)
        feed, forward, backward, optimizer, waiting = (
            1000 * median(column) for column in zip(*rows[1:], strict=True)
        )
        busy_threads = (process_time() - busy) / (ended - begun)
        optimizer /= self._settings.accumulate
        return Steps(feed, forward, backward, optimizer, max(0.0, waiting), busy_threads, len(rows) - 1)

    def _feed(self, settings: FinetuneSettings, count: int) -> Feed:
        """Batches of `count` pictures each, which the sample must have at least."""
        whole = len(self._split) - len(self._split) % count
        if whole not in self._parts:
            self._parts[whole] = self._split if whole == len(self._split) else part(self._split, whole)
        settings = settings.model_copy(update={"batch": count})
        return Feed(self._parts[whole], self._input, settings, teaching=None, seed=0)

    def _taught(self, batch: Batch) -> Batch:
        if self._settings.distill == 0.0:
            return batch
        return dataclasses.replace(batch, taught=torch.zeros(len(batch.labels), self._classes))

    def _loss(self, batch: Batch) -> Tensor:
        with autocast(self.precision):
            logits = self._model(batch.pictures)
        return objective.loss(logits, batch.labels, batch.taught, self._settings)

    def _gradient(self, batch: Batch) -> Callable[[], None]:
        def compute() -> None:
            torch.autograd.backward(self._loss(batch))
            self._model.zero_grad(set_to_none=True)

        return compute

    def _layout(self, layout: torch.memory_format) -> Callable[[], object]:
        return lambda: self._model.to(memory_format=layout)  # type: ignore[call-overload]

    def _watched(self, clock: _Clock) -> Callable[[Tensor], Tensor]:
        """The network, leaving the time when it has answered and when its gradient begins."""

        def forward(pictures: Tensor) -> Tensor:
            logits: Tensor = self._model(pictures)
            logits.register_hook(lambda _: _stamp(clock, "loss"))  # type: ignore[no-untyped-call]
            _stamp(clock, "forward")
            return logits

        return forward


def _stamp(clock: _Clock, name: str) -> None:
    setattr(clock, name, perf_counter())
