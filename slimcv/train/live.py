"""The teacher asked while the student trains, about the very pictures that the student sees."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from slimcv.data import Split
from slimcv.data.augmentation import Augmentation, augment
from slimcv.data.batches import gather
from slimcv.step import Context
from slimcv.train.asking import Form, teacher_pixels

SAMPLE = 256
"""Pictures by which the teacher's top-1 is told beforehand."""


class Live:
    """A teacher at its own input size. `seconds` and `asked` count what its answers took.

    `top1` is its percentage on the first training pictures, unchanged; they are a fair sample.
    """

    def __init__(
        self, context: Context, split: Split, augmentation: Augmentation, *, form: Form, same_size: bool
    ) -> None:
        self.form = form.name
        self.seconds = 0.0
        self.asked = 0
        self._form, self._augmentation, self._same_size = form, augmentation, same_size
        self._pixels = teacher_pixels(context, split)
        sample = self._pixels[:SAMPLE]
        self.top1 = 100.0 * float(np.mean(self._answers(sample).argmax(axis=1) == split.labels[:SAMPLE]))

    def of(self, index: np.ndarray, pictures: Tensor, *, random: Callable[[], torch.Generator]) -> Tensor:
        """Float32 (n, classes) for the pictures at `index`, changed as `pictures` were.

        `pictures` are the student's, uint8 (n, height, width, channels). For a teacher with another input
        size the same changes, drawn from the same `random` numbers, are made to pictures of that size.
        """
        if not self._same_size:
            pictures, _ = augment(gather(self._pixels, index), self._augmentation, generator=random())
        return torch.from_numpy(self._answers(pictures.numpy()))

    def _answers(self, pixels: np.ndarray) -> np.ndarray:
        begun = time.perf_counter()
        answers = self._form.answers(pixels)
        self.seconds += time.perf_counter() - begun
        self.asked += len(pixels)
        return answers
