"""How often a prepared model is right."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from slimcv.errors import SlimcvError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from slimcv.data import Split
    from slimcv.runtimes import Prepared
    from slimcv.step import InputSpec


BATCH = 32
"""Pictures that are asked about at once."""


@dataclass(frozen=True)
class Accuracy:
    """Percentages over `n` pictures; `top5` is None below six classes, where it would say nothing.

    `logits` (n, classes) are the model's outputs, `predictions` (n,) the index of the largest, `right` (n,)
    whether that is the label.
    """

    top1: float
    top5: float | None
    n: int
    predictions: NDArray[np.int64]
    logits: NDArray[np.float32]
    right: NDArray[np.bool_]


def evaluate(prepared: Prepared, split: Split, input: InputSpec, *, batch: int | None = None) -> Accuracy:
    """Top-1 and top-5 on a split, its pixels normalised as everywhere in slimcv.

    `batch` is that of `predict_pixels`. Raises SlimcvError for a model whose outputs are not the split's
    classes.
    """
    found = outputs(prepared, split, input, batch=batch)
    split.check_outputs(found.shape[1])
    return score(found, split.labels)


def outputs(
    prepared: Prepared, split: Split, input: InputSpec, *, batch: int | None = None, limit: int | None = None
) -> NDArray[np.float32]:
    """The model's outputs (n, classes) for the pictures of a split, or for its first `limit`."""
    pixels = split.pixels(input.height, input.width, input.channels)
    return predict_pixels(prepared, pixels[:limit], input, batch=batch)


def predict_pixels(
    prepared: Prepared, pixels: NDArray[np.uint8], input: InputSpec, *, batch: int | None = None
) -> NDArray[np.float32]:
    """The model's outputs for uint8 pictures (n, height, width, channels).

    `batch` is the number of pictures that the file was written for, where it takes no other.
    """
    from slimcv.runtimes import answer

    if len(pixels) == 0:
        raise SlimcvError("there is no picture to measure the accuracy on", "add pictures to the val/ folder")
    found = []
    size = batch or min(BATCH, len(pixels))
    for start in range(0, len(pixels), size):
        chunk = np.array(pixels[start : start + size])
        # The last batch may be smaller, which not every file takes.
        padding = np.repeat(chunk[-1:], size - len(chunk), axis=0)
        found.append(answer(prepared, np.concatenate([chunk, padding]), input)[: len(chunk)])
    return np.concatenate(found)


def score(logits: NDArray[np.float32], labels: NDArray[np.int64]) -> Accuracy:
    """Accuracy of outputs (n, classes) against labels (n,). An output that is not a number is never right."""
    usable = np.where(np.isfinite(logits), logits, -np.inf)
    predictions = usable.argmax(axis=1).astype(np.int64)
    failed = ~np.isfinite(logits).any(axis=1)
    correct = (predictions == labels) & ~failed
    top5 = None
    if logits.shape[1] > 5:
        best = np.argpartition(-usable, 4, axis=1)[:, :5]
        top5 = 100.0 * float(((best == labels[:, None]).any(axis=1) & ~failed).mean())
    return Accuracy(100.0 * float(correct.mean()), top5, len(labels), predictions, logits, correct)
