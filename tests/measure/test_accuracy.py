"""Accuracy is counted in percent, over every picture, whatever the batch size."""

from dataclasses import dataclass

import numpy as np
import pytest

from slimcv.errors import SlimcvError
from slimcv.measure import accuracy
from slimcv.step import InputSpec

INPUT = InputSpec(1, 2, 2, mean=(0.0,), std=(1.0,))


@dataclass
class Pictures:
    """A split of given pixels."""

    values: np.ndarray
    labels: np.ndarray

    def check_outputs(self, outputs):
        assert outputs > self.labels.max()

    def pixels(self, height, width, channels):
        return np.broadcast_to(self.values[:, None, None, None], (len(self.values), height, width, channels))


class Brightness:
    """A model that names the class after the brightness, and remembers the sizes of its batches."""

    runtime = "eager"
    precision = "fp32"
    input_format = "float-nchw"

    def __init__(self, classes):
        self.classes = classes
        self.sizes = []

    def predict(self, batch):
        self.sizes.append(batch.shape)
        assert batch.dtype == np.float32
        assert batch.flags.c_contiguous
        named = np.rint(batch[:, 0, 0, 0] * 255).astype(int)
        return -np.abs(np.arange(self.classes)[None] - named[:, None]).astype(np.float32)


def test_every_picture_counts_once_and_the_last_batch_keeps_the_size_of_the_others():
    split = Pictures(np.arange(7, dtype=np.uint8), np.array([0, 1, 2, 3, 4, 0, 0]))
    model = Brightness(7)
    found = accuracy.evaluate(model, split, INPUT, batch=3)
    assert found.n == 7
    assert found.top1 == pytest.approx(100 * 5 / 7)
    assert found.predictions.tolist() == [0, 1, 2, 3, 4, 5, 6]
    assert set(model.sizes) == {(3, 1, 2, 2)}


def test_top_5_counts_a_label_among_the_five_largest_outputs():
    split = Pictures(np.zeros(6, np.uint8), np.arange(6))
    found = accuracy.evaluate(Brightness(6), split, INPUT)
    assert found.top5 == pytest.approx(100 * 5 / 6)
    assert found.top1 == pytest.approx(100 / 6)


def test_top_5_is_not_measured_with_five_classes():
    split = Pictures(np.zeros(2, np.uint8), np.zeros(2, int))
    assert accuracy.evaluate(Brightness(5), split, INPUT).top5 is None


def test_outputs_that_are_not_numbers_are_never_right():
    logits = np.full((4, 6), np.nan, np.float32)
    found = accuracy.score(logits, np.zeros(4, int))
    assert (found.top1, found.top5) == (0.0, 0.0)


def test_no_picture_is_an_error_and_not_a_made_up_zero():
    with pytest.raises(SlimcvError, match="no picture"):
        accuracy.evaluate(Brightness(6), Pictures(np.zeros(0, np.uint8), np.zeros(0, int)), INPUT)
