"""Pixels are scaled by a mean and a deviation for each channel, or it is said why not."""

import numpy as np
import pytest

from slimcv.data.normalisation import coefficients, normalised
from slimcv.errors import SlimcvError
from slimcv.step import InputSpec


def test_grey_pictures_are_normalised_by_one_value():
    found = normalised(
        np.full((1, 2, 2, 1), 255, dtype=np.uint8), InputSpec(1, 2, 2, mean=(0.5,), std=(0.25,))
    )
    np.testing.assert_allclose(found, 2.0, atol=1e-6)


@pytest.mark.parametrize(
    "input",
    [InputSpec(1, 2, 2), InputSpec(3, 2, 2, mean=(0.5, 0.5)), InputSpec(3, 2, 2, std=(1.0, 1.0, 0.0))],
    ids=str,
)
def test_a_normalisation_that_does_not_fit_is_refused(input):
    with pytest.raises(SlimcvError):
        coefficients(input)
