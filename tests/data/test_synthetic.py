"""Noise that looks to a network like photographs."""

import numpy as np
import pytest

from slimcv.data.synthetic import pictures
from slimcv.step import InputSpec


@pytest.mark.parametrize("shape", [(3, 32, 48), (1, 28, 28), (4, 9, 7), (3, 1, 1)])
def test_pictures_have_the_shape_of_the_input(shape):
    found = pictures(5, InputSpec(*shape), seed=0)
    assert found.dtype == np.uint8
    assert found.shape == (5, shape[1], shape[2], shape[0])


def test_a_picture_depends_on_seed_and_number_alone():
    small, large = (pictures(count, InputSpec(3, 16, 16), seed=1) for count in (2, 6))
    assert np.array_equal(small, large[:2])
    assert not np.array_equal(small, pictures(2, InputSpec(3, 16, 16), seed=2))


def test_the_spectrum_falls_with_frequency_as_in_photographs():
    grey = pictures(40, InputSpec(3, 64, 64), seed=0).mean(-1)
    amplitude = np.abs(np.fft.fft2(grey - grey.mean((1, 2), keepdims=True))).mean(0)
    frequency = np.hypot(np.fft.fftfreq(64)[:, None], np.fft.fftfreq(64)[None, :])
    chosen = (frequency > 0.02) & (frequency < 0.4)
    slope = np.polyfit(np.log(frequency[chosen]), np.log(amplitude[chosen]), 1)[0]
    assert -1.4 < slope < -0.7


def test_brightness_contrast_and_colours_are_those_of_photographs():
    found = pictures(60, InputSpec(3, 48, 48), seed=0) / 255
    assert 0.35 < found.mean() < 0.55
    assert 0.15 < found.std() < 0.3
    red, green, blue = (found[..., channel].ravel() for channel in range(3))
    assert np.corrcoef(red, green)[0, 1] > 0.8
    assert np.corrcoef(red, blue)[0, 1] > 0.7
