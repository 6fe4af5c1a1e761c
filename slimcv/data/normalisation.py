"""The one normalisation of slimcv, in numpy alone: prediction without torch sees the very same numbers."""

from __future__ import annotations

import numpy as np

from slimcv.errors import SlimcvError
from slimcv.step import InputSpec


def coefficients(input: InputSpec) -> tuple[np.ndarray, np.ndarray]:
    """Scale and shift, float32 (channels,), with `(pixel / 255 - mean) / std == pixel * scale + shift`.

    Raises SlimcvError unless mean and std have one value, or one for each channel, and no std is 0.
    """
    for values in (input.mean, input.std):
        if len(values) not in (1, input.channels):
            raise SlimcvError(
                f"normalisation by {len(values)} values does not fit an input of {input.channels} channels",
                "give one mean and one std for each channel, in slimcv.yaml or with the model",
            )
    if not all(input.std):
        raise SlimcvError(
            "a std of 0 cannot normalise", "give the standard deviation of each channel, above 0"
        )
    mean = np.broadcast_to(np.asarray(input.mean, dtype=np.float64), (input.channels,))
    std = np.broadcast_to(np.asarray(input.std, dtype=np.float64), (input.channels,))
    return (1 / (255 * std)).astype(np.float32), (-mean / std).astype(np.float32)


def normalised(pixels: np.ndarray, input: InputSpec) -> np.ndarray:
    """Float32 (n, channels, height, width) from uint8 (n, height, width, channels).

    It is a view with the channels innermost in memory; `np.ascontiguousarray` gives a runtime that needs it
    the other layout.
    """
    count, height, width, channels = pixels.shape
    # Whole rows at a time: broadcasting over 3 channels is several times slower.
    scale, shift = (np.tile(values, width) for values in coefficients(input))
    rows = pixels.reshape(count, height, width * channels).astype(np.float32)
    rows *= scale
    rows += shift
    return rows.reshape(count, height, width, channels).transpose(0, 3, 1, 2)
