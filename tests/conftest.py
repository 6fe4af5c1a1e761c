"""What every test may rely on: torchvision beside a CPU torch, no library chatter, one thread, no chance."""

import logging
import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("GOMP_SPINCOUNT", "0")
os.environ.setdefault("TORCHINDUCTOR_FX_GRAPH_CACHE", "0")

import hypothesis
import numpy as np
import pytest
import torch
from PIL import Image

from slimcv.profile.roofline import limits

# The torchvision wheel is built for CUDA and looks for two operators at import that a CPU torch does not
# define.
_vision = torch.library.Library("torchvision", "DEF")
for _schema in (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
):
    _vision.define(_schema)

torch.set_num_threads(1)

# The same examples in every run, however slow the machine is.
hypothesis.settings.register_profile("same", derandomize=True, deadline=None)
hypothesis.settings.load_profile("same")


def pytest_collection_modifyitems(items):
    """Files with long checks go first, so that no process is left with one when all others are done."""
    long = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in long)


@pytest.fixture(scope="session")
def _host(tmp_path_factory):
    return tmp_path_factory.mktemp("host")


@pytest.fixture(autouse=True)
def _private_cache(tmp_path, monkeypatch, _host):
    """No test reads or leaves pictures in the user's own cache, nor sees their configuration.

    What this machine can do at most is measured once, as it is for a user, and not by each test.
    """
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(limits, "default_folder", lambda: _host)
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def _quiet_afterwards():
    """The command line hands its log to the stderr of the moment, which a test replaces by its own."""
    yield
    logger = logging.getLogger("slimcv")
    logger.handlers, logger.propagate = [], True
    logger.setLevel(logging.NOTSET)
    logging.captureWarnings(False)


@pytest.fixture(scope="session")
def write_noise():
    """A function that writes square pictures of noise into `folder`/pictures: so many for each class."""

    def write(folder, *, size, each, classes=("one", "two")):
        random = np.random.default_rng(0)
        for name in classes:
            (folder / "pictures" / name).mkdir(parents=True)
            for number in range(each):
                pixels = random.integers(0, 256, (size, size, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / "pictures" / name / f"{number}.png")

    return write
