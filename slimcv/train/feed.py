"""Training batches: pictures in a seeded order, changed at random, with labels and the teacher's outputs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from slimcv.data import Split
from slimcv.data.augmentation import Augmentation, augment
from slimcv.data.batches import epoch_order, gathered, normalise
from slimcv.step import InputSpec
from slimcv.train.live import Live
from slimcv.train.processes.group import ALONE, Processes
from slimcv.train.settings import FinetuneSettings
from slimcv.train.teacher import Targets

PICTURES, NETWORK = 0, 1
"""The two uses of random numbers in a step: changing the pictures, and dropout and its like."""

STREAMS = 2


@dataclass(frozen=True)
class Batch:
    """`pictures` float32 (n, channels, height, width) normalised, channels_last; `labels` int64 (n,).

    `taught` are the teacher's outputs (n, classes) for these pictures, or for them only mirrored in the same
    way, or None. `elsewhere` counts the pictures of the same step that other processes have.
    """

    pictures: Tensor
    labels: Tensor
    taught: Tensor | None
    elsewhere: int = 0

    @property
    def whole(self) -> int:
        """The pictures of the step, over all processes."""
        return len(self.labels) + self.elsewhere

    @property
    def share(self) -> float:
        """The part of the step's pictures that these are, 0 to 1."""
        return len(self.labels) / self.whole


def augmentation(settings: FinetuneSettings) -> Augmentation:
    """The random changes that the settings ask for."""
    return Augmentation(
        flip=settings.flip,
        vertical_flip=settings.vertical_flip,
        crop=settings.crop,
        shift=settings.shift,
        colour=settings.colour,
    )


def step_seed(seed: int, epoch: int, step: int, *, stream: int, rank: int = 0) -> int:
    """Where the random numbers of a step begin: they depend on nothing that was drawn before.

    So a training that is gone on with in the middle of an epoch draws what an unbroken one does. `stream` is
    PICTURES or NETWORK; each process has streams of its own.
    """
    numbers = np.random.SeedSequence((seed, epoch, step, stream + STREAMS * rank))
    state = numbers.generate_state(1, np.uint64)[0]
    return int(state >> np.uint64(1))


class Feed:
    """The training pictures at the student's input size, mapped from the cache.

    Of several `processes` each feeds its share of every batch: together they feed the batches of one.
    """

    def __init__(
        self,
        split: Split,
        input: InputSpec,
        settings: FinetuneSettings,
        *,
        teaching: Targets | Live | None,
        seed: int,
        processes: Processes = ALONE,
    ) -> None:
        self.count = len(split)
        # Batches as large as each other, give or take a picture: BatchNorm refuses a last one of one picture.
        most = self.count // (2 * processes.count)
        self.steps = max(1, min(-(-self.count // settings.batch_pictures), most))
        self._pixels = split.pixels(input.height, input.width, input.channels)
        self._labels = split.labels
        self._input = input
        self._augmentation = augmentation(settings)
        self._teaching = teaching
        self._seed = seed
        self._processes = processes

    @property
    def sizes(self) -> tuple[int, ...]:
        """The one or two sizes that batches have."""
        each, more = divmod(self.count, self.steps)
        wholes = (each, each + 1) if more else (each,)
        return tuple(sorted({len(self._processes.part(np.arange(whole))) for whole in wholes}))

    def epoch(self, number: int, *, first: int = 0) -> Iterator[Batch]:
        """Every picture once, in `steps` batches that depend on the seed and the number alone.

        Begins with the batch at position `first`, as if those before it had been taken.
        """
        wholes = np.array_split(epoch_order(self.count, seed=self._seed, epoch=number), self.steps)[first:]
        parts = (self._processes.part(whole) for whole in wholes)
        for step, (whole, (index, found)) in enumerate(
            zip(wholes, gathered(self._pixels, parts), strict=True), start=first
        ):
            yield self._batch(index, found, number, step, elsewhere=len(whole) - len(index))

    def _batch(self, index: np.ndarray, found: Tensor, epoch: int, step: int, *, elsewhere: int) -> Batch:
        seed = step_seed(self._seed, epoch, step, stream=PICTURES, rank=self._processes.rank)

        def random() -> torch.Generator:
            return torch.Generator().manual_seed(seed)

        pictures, flips = augment(found, self._augmentation, generator=random())
        taught = None
        if isinstance(self._teaching, Live):
            taught = self._teaching.of(index, pictures, random=random)
        elif self._teaching is not None:
            taught = torch.from_numpy(self._teaching.of(index, flips.numpy()))
        labels = torch.from_numpy(self._labels[index])
        return Batch(normalise(pictures, self._input), labels, taught, elsewhere)
