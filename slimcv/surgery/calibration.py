"""The pictures that surgery fits its new layers on."""

from __future__ import annotations

import numpy as np
from torch import Tensor
from torch.fx import GraphModule

from slimcv.data import synthetic
from slimcv.data.batches import gather, normalise
from slimcv.data.pixels import Pixels
from slimcv.models import capture
from slimcv.step import Context, InputSpec
from slimcv.surgery.sweep import peak_bytes

BATCH_SIZE = 8

SWEEP_BYTES = 2**30
"""Memory that the values of two networks may take while layers of one are fitted to the other's."""


def pictures_that_fit(
    model: GraphModule, input: InputSpec, *, most: int, sweep_bytes: int = SWEEP_BYTES
) -> int:
    """How many pictures two sweeps through a network can hold the values of in this memory; one at least."""
    held = 2 * peak_bytes(model, capture.shapes(model, input))
    return max(1, min(most, sweep_bytes // max(1, held)))


def calibration_batches(context: Context, input: InputSpec, *, count: int) -> list[Tensor]:
    """At most `count` normalised pictures `(n, C, H, W)`, eight a batch, in channels_last memory.

    A seeded sample of the training pictures; the tuning split is left alone, since steps are judged on it.
    Without data, noise with the spectrum of photographs.
    """
    if context.data is None:
        chosen = np.arange(count)
        pixels: np.ndarray | Pixels = synthetic.pictures(count, input, seed=context.seed)
    else:
        pixels = context.data.train.pixels(input.height, input.width, input.channels)
        order = np.random.default_rng(context.seed).permutation(len(pixels))
        chosen = order[:count]
    starts = range(0, len(chosen), BATCH_SIZE)
    return [normalise(gather(pixels, chosen[at : at + BATCH_SIZE]), input) for at in starts]
