"""The step `compile`: proven on this machine, or not applicable where there is no compiler."""

import shutil

import pytest
from torch import nn

from slimcv.errors import NotApplicable
from slimcv.models import capture
from slimcv.step import Context, InputSpec, Stage, Variant
from slimcv.steps.compile import Compile

INPUT = InputSpec(3, 8, 8)


@pytest.fixture
def variant():
    network = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)
    )
    return Variant(capture.capture(network, INPUT), INPUT)


@pytest.fixture
def context(variant, tmp_path):
    return Context(variant, None, tmp_path, threads=1, train_threads=1)


def test_the_step_exports_and_changes_nothing():
    assert Compile.stage is Stage.EXPORT
    assert Compile.lossless


@pytest.mark.skipif(shutil.which("g++") is None, reason="needs a C++ compiler")
def test_the_compiled_network_answers_like_the_network(variant, context):
    compiled = Compile().apply(variant, context)
    assert compiled.runtime == "inductor"
    assert compiled.artifacts["inductor"].suffix == ".pt2"
    assert compiled.details["inductor"]["max_abs_diff"] < 1e-3


def test_without_a_compiler_it_does_not_apply(variant, context, monkeypatch):
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(NotApplicable, match="compiler"):
        Compile().apply(variant, context)
