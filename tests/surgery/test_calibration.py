"""How many pictures surgery fits its layers on."""

import pytest
from torch import nn

from slimcv import surgery
from slimcv.models import capture
from slimcv.step import InputSpec

INPUT = InputSpec(3, 16, 16)


@pytest.mark.parametrize(("sweep_bytes", "count"), [(2**30, 64), (3 * 2**17, 3), (0, 1)])
def test_as_many_pictures_are_taken_as_memory_holds_the_maps_of(sweep_bytes, count):
    layers = nn.Sequential(nn.Conv2d(3, 32, 3, padding=1), nn.Flatten(), nn.Linear(32 * 256, 2))
    model = capture.capture(layers.eval(), INPUT)
    # At most the map of 32 channels and its flat copy are there: 64 KiB, and as much in another network.
    assert surgery.pictures_that_fit(model, INPUT, most=64, sweep_bytes=sweep_bytes) == count
