"""Pictures made of noise with the statistics of photographs, for when there are none."""

from __future__ import annotations

import numpy as np

from slimcv.step import InputSpec

AMPLITUDE_EXPONENT = (0.8, 1.4)
"""The amplitude of photographs falls with frequency f as 1/f^a, a near 1 (Field 1987) and differing with the
scene (Torralba and Oliva 2003)."""

BRIGHTNESS = (0.3, 0.6)
CONTRAST = (0.12, 0.28)
"""Mean and standard deviation of a picture's luminance, of 1: over all of ImageNet they are 0.45 and 0.22."""

COLOURS = np.array([[1.0, 0.25, 0.1], [1.0, 0.0, -0.12], [1.0, -0.25, 0.1]])
"""From luminance, red-blue and magenta-green to RGB. Photographs vary independently along these axes, along
each less than along the one before (Ohta, Kanade and Sakai 1980)."""


def pictures(count: int, input: InputSpec, *, seed: int) -> np.ndarray:
    """Uint8 (count, height, width, channels): coloured noise with the 1/f spectrum of photographs.

    Networks answer to such noise much as to photographs, unlike to white noise (Baradad et al. 2021,
    "Learning to See by Looking at Noise"). Picture i depends on `seed` and i alone. An input of other than 3
    channels gets that many independent luminances.
    """
    shape = (count, input.height, input.width, input.channels)
    result = np.empty(shape, dtype=np.uint8)
    frequencies = np.hypot(np.fft.fftfreq(input.height)[:, None], np.fft.rfftfreq(input.width)[None, :])
    frequencies[0, 0] = np.inf
    for index in range(count):
        random = np.random.default_rng((seed, index))
        amplitude = frequencies ** -random.uniform(*AMPLITUDE_EXPONENT)
        white = random.standard_normal((input.channels, input.height, input.width))
        planes = np.fft.irfft2(np.fft.rfft2(white) * amplitude, s=white.shape[1:])
        planes /= np.maximum(planes.std(axis=(1, 2), keepdims=True), 1e-12)
        picture = planes.transpose(1, 2, 0)
        if input.channels == 3:
            picture = picture @ COLOURS.T
        picture = random.uniform(*BRIGHTNESS) + random.uniform(*CONTRAST) * picture
        result[index] = np.rint(255 * picture.clip(0, 1))
    return result
