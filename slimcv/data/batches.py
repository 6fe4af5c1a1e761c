"""Pixels from the cache to what a model is fed, batch by batch, in an order that a seed alone decides."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain

import numpy as np
import torch
from torch import Tensor

from slimcv.data.normalisation import coefficients
from slimcv.data.pixels import Pixels
from slimcv.step import InputSpec


def normalise(pixels: Tensor, input: InputSpec) -> Tensor:
    """Float32 (n, channels, height, width) in channels_last memory from pixels (n, height, width, channels).

    `(pixel / 255 - mean) / std` for each channel. The pixels, uint8 or float32 from 0 to 255, are left as
    they are. Bit for bit what slimcv.data.normalisation.normalised computes without torch.
    """
    count, height, width, channels = pixels.shape
    # Whole rows at a time and type by type: broadcasting over 3 channels or mixing types is 15 times slower.
    scale, shift = (torch.from_numpy(values).repeat(width) for values in coefficients(input))
    rows = pixels.reshape(count, height, width * channels).to(torch.float32, copy=True)
    rows.mul_(scale).add_(shift)
    return rows.view(count, height, width, channels).permute(0, 3, 1, 2)


def gather(pixels: np.ndarray | Pixels, index: np.ndarray) -> Tensor:
    """Copy the pictures at these positions, a uint8 tensor (len(index), height, width, channels)."""
    return torch.from_numpy(np.asarray(pixels[index]))


def gathered(pixels: np.ndarray | Pixels, parts: Iterable[np.ndarray]) -> Iterator[tuple[np.ndarray, Tensor]]:
    """Yield each array of positions with the pictures there, as `gather` gives them.

    Pictures that are not kept are decoded for the next positions while the caller works on those given.
    """
    upcoming = None
    for following in chain(parts, (None,)):
        if following is not None and isinstance(pixels, Pixels):
            pixels.expect(following)
        if upcoming is not None:
            yield upcoming, gather(pixels, upcoming)
        upcoming = following


def batches(
    pixels: np.ndarray | Pixels,
    labels: np.ndarray,
    input: InputSpec,
    *,
    batch_size: int,
    order: np.ndarray | None = None,
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Yield (x, labels, index) over a split's pixels, or over the positions in `order` and in that order.

    `x` is float32 (b, channels, height, width), normalised, in channels_last memory; `labels` and `index`,
    the positions in `pixels`, are int64 (b,). The last batch may be smaller.
    """
    positions = np.arange(len(pixels)) if order is None else np.asarray(order, dtype=np.int64)
    parts = (positions[start : start + batch_size] for start in range(0, len(positions), batch_size))
    for index, found in gathered(pixels, parts):
        x = normalise(found, input)
        yield x, torch.from_numpy(labels[index]), torch.from_numpy(index.copy())


def epoch_order(count: int, *, seed: int, epoch: int) -> np.ndarray:
    """A permutation of 0 … count-1, int64, decided by the arguments alone: a resumed run repeats it."""
    return np.random.default_rng((seed, epoch)).permutation(count)


def epoch_generator(*, seed: int, epoch: int) -> torch.Generator:
    """The source of an epoch's random numbers (augmentation), the same whenever the epoch is run again."""
    state = np.random.SeedSequence((seed, epoch)).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(state >> np.uint64(1)))
