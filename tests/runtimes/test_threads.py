"""Threads by default: what affinity and container leave, for every runtime alike, noted with the result."""

import os

import numpy as np
import pytest
import torch
from torch import nn

from slimcv import optimization, runtimes
from slimcv.measure import environment
from slimcv.measure.threads import available
from slimcv.models import capture
from slimcv.step import InputSpec, Variant

INPUT = InputSpec(3, 8, 8)

LIBRARIES_OWN = {
    "eager": lambda _: torch.get_num_threads(),
    "onnxruntime": lambda prepared: prepared._session.get_session_options().intra_op_num_threads,
    "openvino": lambda prepared: prepared._compiled.get_property("INFERENCE_NUM_THREADS"),
}
"""What each library says it uses."""


@pytest.fixture
def variant():
    layers = nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)
    return Variant(capture.capture(nn.Sequential(*layers).eval(), INPUT), INPUT)


@pytest.fixture(params=["all allowed", "one"])
def affinity(request):
    """All that this process may use, or a single CPU."""
    before, threads = os.sched_getaffinity(0), torch.get_num_threads()
    if request.param == "one":
        os.sched_setaffinity(0, {min(before)})
    yield
    os.sched_setaffinity(0, before)
    torch.set_num_threads(threads)


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="affinity is Linux's")
@pytest.mark.usefixtures("affinity")
@pytest.mark.parametrize("runtime", LIBRARIES_OWN)
def test_every_library_uses_what_is_allowed_unless_it_is_told_otherwise(variant, tmp_path, runtime):
    context = optimization.make_context(
        variant, None, tmp_path, threads=None, seed=0, kept=optimization.Caching(), classes=None
    )
    assert context.threads == available() <= len(os.sched_getaffinity(0))
    prepared = runtimes.prepare(runtimes.write(variant, runtime, tmp_path), runtime, threads=context.threads)
    prepared.predict(np.zeros((1, *INPUT.shape), np.float32))
    assert LIBRARIES_OWN[runtime](prepared) == available()
    assert environment.describe().threads_allowed == available()
