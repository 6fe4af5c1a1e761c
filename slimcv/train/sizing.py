"""How many pictures a step takes: measured in real steps, within the memory there is."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from torch.fx import GraphModule

from slimcv.data import Split
from slimcv.data.batches import gather, normalise
from slimcv.errors import SlimcvError
from slimcv.measure import memory
from slimcv.models import capture
from slimcv.step import InputSpec
from slimcv.train import maps, objective
from slimcv.train.maps import SHARE_OF_FREE
from slimcv.train.optimizer import adamw
from slimcv.train.precision import Precision, autocast
from slimcv.train.processes.group import ALONE, Processes
from slimcv.train.progress import Remarks
from slimcv.train.settings import FinetuneSettings

SMALLEST, FIRST, LARGEST = 2, 8, 4096
"""Pictures a step: the fewest BatchNorm takes, the first that is tried, the most."""

MAPS_BYTES = 2**27
"""Maps that a step keeps for its gradients: with more, fewer pictures are as fast and take less memory."""

STEPS_AN_EPOCH = 8
"""A batch that leaves fewer updates an epoch learns too slowly, however fast it is."""

WORTHWHILE = 1.03
"""How much faster a larger batch must be; it pays with fewer updates an epoch."""

SHARE_OF_TIME = 0.03
"""The part of the remaining time that measuring may take."""

MOST_SECONDS = 30.0
TIMED_STEPS = 2

_REFUSALS = ("can't allocate memory", "bad_alloc", "not enough memory", "out of memory")
"""How PyTorch's allocator, the C++ library and oneDNN say that there is no more memory."""

log = logging.getLogger("slimcv")


@dataclass(frozen=True)
class Size:
    """`batch` pictures a step, `accumulate` steps an update; `seconds_each` of a picture, where measured."""

    batch: int
    accumulate: int
    seconds_each: float | None = None


@dataclass(frozen=True)
class Tried:
    """What steps of `batch` pictures took: seconds a picture, and the process's peak of resident memory.

    `peak_bytes` is 0 where memory was not measured.
    """

    batch: int
    seconds_each: float
    peak_bytes: int


@contextmanager
def allocations() -> Iterator[None]:
    """Turns every way of saying that an allocation failed into MemoryError."""
    try:
        yield
    except RuntimeError as error:
        if any(words in str(error).lower() for words in _REFUSALS):
            raise MemoryError(str(error)) from error
        raise


def choose(
    model: GraphModule,
    split: Split,
    input: InputSpec,
    settings: FinetuneSettings,
    *,
    precision: Precision,
    seconds_left: float,
    timed: bool,
    remarks: Remarks,
    free_bytes: int | None,
    processes: Processes = ALONE,
) -> Size:
    """The batch that the settings ask for, where it fits, or the fastest one that does.

    `free_bytes` is what the machine has free (see slimcv.measure.room). Of several `processes` each takes its
    share of a batch, which is what is tried, and of the free memory.

    Tried on a copy of `model` with `split`'s first pictures, up to the update of the weights, unless its maps
    tell beforehand that there is no room. A given batch that does not fit is halved, and `accumulate` doubled
    for it, until it does; `timed` says that what it takes matters, which costs a second step. A network
    without BatchNorm, whose gradients do not depend on how a batch is divided, is given it in parts where its
    maps are large. Raises SlimcvError where two pictures do not fit.
    """
    count = processes.count
    if seconds_left <= 0:
        return Size(settings.batch_pictures, settings.accumulate)
    trial = Trial(
        model, split, input, settings, precision, free_bytes=free_bytes, processes=processes.local_count
    )
    if settings.batch == "auto":
        limit = settings.memory or _limit(free_bytes, processes.local_count)
        found = _fastest(trial, len(split) // count, limit, settings, seconds_left=seconds_left)
        return Size(count * found.batch, found.accumulate, found.seconds_each)
    return _fitting(trial, len(split), settings, remarks, timed=int(timed), count=count)


class Trial:
    """Training steps on a copy of a network, whose weights hardly change."""

    def __init__(
        self,
        model: GraphModule,
        split: Split,
        input: InputSpec,
        settings: FinetuneSettings,
        precision: Precision,
        *,
        free_bytes: int | None = None,
        processes: int = 1,
    ) -> None:
        self._model = capture.copy(model)
        capture.set_training(self._model, False)
        self._maps = maps.of(self._model, input)
        self._most = maps.most(self._model, self._maps, free_bytes, processes=processes)
        capture.set_training(self._model, True)
        self._optimizer = adamw(list(self._model.parameters()), 1e-9, 0.0)
        self._pixels = split.pixels(input.height, input.width, input.channels)
        self._labels = split.labels
        self._input, self._settings, self._precision = input, settings, precision
        # Best weights and running average come on top of what a trial holds.
        self._kept_bytes = sum(value.nbytes for value in self._model.state_dict().values())

    def part(self, batch: int) -> int:
        """The part of a batch to take at once: halved until its maps are not too large."""
        if any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in self._model.modules()):
            return batch
        each = self._maps.together
        while batch % 2 == 0 and batch // 2 >= FIRST and batch * each > MAPS_BYTES:
            batch //= 2
        return batch

    def has_room(self, batch: int) -> bool:
        """Whether so many pictures can be tried: Linux ends a process that takes too much, unasked."""
        return batch <= self._most

    def run(self, batch: int, *, timed: int, limited: bool) -> Tried:
        """A step that does not count, and the fastest of `timed` more. Raises MemoryError.

        With `timed=0` it is the first step that counts. Where no limit is given memory is not measured, for
        which all garbage must be collected: `peak_bytes` is 0.
        """
        if limited:
            memory.reset_peak()
        fastest = float("inf")
        for number in range(1 + timed):
            begun = time.perf_counter()
            with allocations():
                self._step(batch)
            if number or not timed:
                fastest = min(fastest, time.perf_counter() - begun)
        peak_bytes = memory.peak() + self._kept_bytes if limited else 0
        return Tried(batch, fastest / batch, peak_bytes)

    def _step(self, batch: int) -> None:
        index = np.arange(batch) % len(self._labels)
        pictures = normalise(gather(self._pixels, index), self._input)
        with autocast(self._precision):
            logits = self._model(pictures)
        loss = objective.loss(logits, torch.from_numpy(self._labels[index]), None, self._settings)
        torch.autograd.backward(loss)
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)


def _fastest(
    trial: Trial, pictures: int, limit: int, settings: FinetuneSettings, *, seconds_left: float
) -> Size:
    """Grow the batch while that pays and fits; take the smallest that is about as fast as the fastest."""
    most = max(FIRST, min(LARGEST, pictures // STEPS_AN_EPOCH))
    end = time.perf_counter() + min(MOST_SECONDS, SHARE_OF_TIME * seconds_left)
    tried: list[Tried] = []
    batch = FIRST
    while batch <= most and _expected_bytes(tried, batch) <= limit:
        found = _tried(trial, batch, limit, timed=TIMED_STEPS)
        if found is None:
            break
        tried.append(found)
        if time.perf_counter() > end or not _still_gaining(tried):
            break
        batch *= 2
    if not tried:
        found = _shrunk(trial, FIRST // 2, limit)
        return Size(found.batch, settings.accumulate, found.seconds_each)
    best = min(each.seconds_each for each in tried)
    chosen = next(each for each in tried if each.seconds_each <= WORTHWHILE * best)
    log.info(
        "batch: %d; measured %s",
        chosen.batch,
        ", ".join(
            f"{each.batch} ({1 / each.seconds_each:.0f} images/s, {each.peak_bytes / 1e9:.2g} GB)"
            for each in tried
        ),
    )
    return Size(chosen.batch, settings.accumulate, chosen.seconds_each)


def _fitting(
    trial: Trial, pictures: int, settings: FinetuneSettings, remarks: Remarks, *, timed: int, count: int
) -> Size:
    """The given batch, or the largest of its halves that fits, with as many more steps an update.

    `count` processes share it.
    """
    bound = settings.memory
    most = trial.part(-(-min(settings.batch_pictures, max(SMALLEST, pictures)) // count))
    found = _tried(trial, most, bound, timed=timed) or _shrunk(trial, most // 2, bound)
    asked = settings.batch_pictures
    if found.batch == -(-min(asked, max(SMALLEST, pictures)) // count):
        return Size(asked, settings.accumulate, found.seconds_each)
    batch = count * found.batch
    parts = -(-asked // batch)
    if found.batch == most:
        log.info("batch: %d pictures in %d parts, which takes less memory", asked, parts)
        return Size(batch, parts * settings.accumulate, found.seconds_each)
    where = "memory" if bound is None else f"{bound / 1e9:.3g} GB"
    remarks.add(
        f"a batch of {asked} does not fit into {where}: {batch} pictures a step, "
        f"the gradients of {parts * settings.accumulate} steps averaged"
    )
    return Size(batch, parts * settings.accumulate, found.seconds_each)


def _shrunk(trial: Trial, most: int, limit: int | None) -> Tried:
    """The first of `most` pictures and its halves that fits."""
    batch = most
    while batch >= SMALLEST:
        found = _tried(trial, batch, limit, timed=0)
        if found is not None:
            return found
        batch //= 2
    where = "the memory there is" if limit is None else f"{limit / 1e9:.3g} GB"
    more = "free some" if limit is None else "give it more with `memory`"
    raise SlimcvError(
        f"training does not fit into {where}, not even with {SMALLEST} pictures a step",
        f"{more}, or make the network or its input smaller before",
    )


def _tried(trial: Trial, batch: int, limit: int | None, *, timed: int) -> Tried | None:
    """What steps of that many pictures took, None where they do not fit."""
    if not trial.has_room(batch):
        return None
    try:
        found = trial.run(batch, timed=timed, limited=limit is not None)
    except MemoryError:
        return None
    return found if limit is None or found.peak_bytes <= limit else None


def _still_gaining(tried: list[Tried]) -> bool:
    """One of the last two sizes was worth its growth."""
    if len(tried) < 3:
        return True
    before = min(each.seconds_each for each in tried[:-2])
    return min(each.seconds_each for each in tried[-2:]) * WORTHWHILE < before


def _expected_bytes(tried: list[Tried], batch: int) -> float:
    """The peak to be expected, on the straight line through the last two; 0 where there is none yet.

    Asked before a size is tried, beside Trial.has_room: what was measured is nearer the truth.
    """
    if len(tried) < 2:
        return 0.0
    before, last = tried[-2:]
    each = max(0, last.peak_bytes - before.peak_bytes) / (last.batch - before.batch)
    return last.peak_bytes + each * (batch - last.batch)


def _limit(free_bytes: int | None, processes: int) -> int:
    """What each of so many processes on this machine may come to where no limit is given."""
    if free_bytes is None:
        return sys.maxsize
    return memory.resident() + int(SHARE_OF_FREE * free_bytes / processes)
