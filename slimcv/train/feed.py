"""Training batches: pictures in a seeded order, changed at random, with labels and the teacher's outputs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from slimcv.data import Split
from slimcv.data.augmentation import Augmentation, augment
from slimcv.data.batches import epoch_generator, epoch_order, gather, normalise
from slimcv.step import InputSpec
from slimcv.train.settings import FinetuneSettings
from slimcv.train.teacher import Targets


@dataclass(frozen=True)
class Batch:
    """`pictures` float32 (n, channels, height, width) normalised, channels_last; `labels` int64 (n,).

    `taught` are the teacher's outputs (n, classes) for these pictures mirrored in the same way, or None.
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


class Feed:
    """The training pictures at the student's input size, mapped from the cache."""

    def __init__(
        self,
        split: Split,
        input: InputSpec,
        settings: FinetuneSettings,
        *,
        targets: Targets | None,
        seed: int,
    ) -> None:
        self.count = len(split)
        # Batches as large as each other, give or take a picture: BatchNorm refuses a last one of one picture.
        self.steps = max(1, min(-(-self.count // settings.batch), self.count // 2))
        self._pixels = split.pixels(input.height, input.width, input.channels)
        self._labels = split.labels
        self._input = input
        self._augmentation = augmentation(settings)
        self._targets = targets
        self._seed = seed

    def epoch(self, number: int) -> Iterator[Batch]:
        """Every picture once, in `steps` batches that depend on the seed and the number alone."""
        order = epoch_order(self.count, seed=self._seed, epoch=number)
        generator = epoch_generator(seed=self._seed, epoch=number)
        for index in np.array_split(order, self.steps):
            pictures, flips = augment(gather(self._pixels, index), self._augmentation, generator=generator)
            taught = (
                None if self._targets is None else torch.from_numpy(self._targets.of(index, flips.numpy()))
            )
            yield Batch(normalise(pictures, self._input), torch.from_numpy(self._labels[index]), taught)
