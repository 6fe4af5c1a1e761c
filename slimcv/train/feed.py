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
from slimcv.train.settings import FinetuneSettings
from slimcv.train.teacher import Targets

PICTURES, NETWORK = 0, 1
"""The two uses of random numbers in a step: changing the pictures, and dropout and its like."""


@dataclass(frozen=True)
class Batch:
    """`pictures` float32 (n, channels, height, width) normalised, channels_last; `labels` int64 (n,).

    `taught` are the teacher's outputs (n, classes) for these pictures, or for them only mirrored in the same
    way, or None.
    """

    pictures: Tensor
    labels: Tensor
    taught: Tensor | None


def augmentation(settings: FinetuneSettings) -> Augmentation:
    """The random changes that the settings ask for."""
    return Augmentation(
        flip=settings.flip,
        vertical_flip=settings.vertical_flip,
        crop=settings.crop,
        shift=settings.shift,
        colour=settings.colour,
    )


def step_seed(seed: int, epoch: int, step: int, *, stream: int) -> int:
    """Where the random numbers of a step begin: they depend on nothing that was drawn before.

    So a training that is gone on with in the middle of an epoch draws what an unbroken one does. `stream` is
    PICTURES or NETWORK.
    """
    state = np.random.SeedSequence((seed, epoch, step, stream)).generate_state(1, np.uint64)[0]
    return int(state >> np.uint64(1))


class Feed:
    """The training pictures at the student's input size, mapped from the cache."""

    def __init__(
        self,
        split: Split,
        input: InputSpec,
        settings: FinetuneSettings,
        *,
        teaching: Targets | Live | None,
        seed: int,
    ) -> None:
        self.count = len(split)
        # Batches as large as each other, give or take a picture: BatchNorm refuses a last one of one picture.
        self.steps = max(1, min(-(-self.count // settings.batch_pictures), self.count // 2))
        self._pixels = split.pixels(input.height, input.width, input.channels)
        self._labels = split.labels
        self._input = input
        self._augmentation = augmentation(settings)
        self._teaching = teaching
        self._seed = seed

    @property
    def sizes(self) -> tuple[int, ...]:
        """The one or two sizes that batches have."""
        each, more = divmod(self.count, self.steps)
        return (each, each + 1) if more else (each,)

    def epoch(self, number: int, *, first: int = 0) -> Iterator[Batch]:
        """Every picture once, in `steps` batches that depend on the seed and the number alone.

        Begins with the batch at position `first`, as if those before it had been taken.
        """
        parts = np.array_split(epoch_order(self.count, seed=self._seed, epoch=number), self.steps)
        for step, (index, found) in enumerate(gathered(self._pixels, parts[first:]), start=first):
            yield self._batch(index, found, number, step)

    def _batch(self, index: np.ndarray, found: Tensor, epoch: int, step: int) -> Batch:
        def random() -> torch.Generator:
            return torch.Generator().manual_seed(step_seed(self._seed, epoch, step, stream=PICTURES))

        pictures, flips = augment(found, self._augmentation, generator=random())
        taught = None
        if isinstance(self._teaching, Live):
            taught = self._teaching.of(index, pictures, random=random)
        elif self._teaching is not None:
            taught = torch.from_numpy(self._teaching.of(index, flips.numpy()))
        return Batch(normalise(pictures, self._input), torch.from_numpy(self._labels[index]), taught)
