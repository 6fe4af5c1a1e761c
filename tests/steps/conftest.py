"""Pictures for steps that calibrate."""

import numpy as np
import pytest
from PIL import Image

from slimcv import data as datasets


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Forty pictures of noise, 16 by 16, in two classes."""
    folder = tmp_path_factory.mktemp("data")
    random = np.random.default_rng(0)
    for name in ("one", "two"):
        (folder / "pictures" / name).mkdir(parents=True)
        for number in range(20):
            pixels = random.integers(0, 256, (16, 16, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / "pictures" / name / f"{number}.png")
    return datasets.load(str(folder / "pictures"), cache=folder / "cache")
