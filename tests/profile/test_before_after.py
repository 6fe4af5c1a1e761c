"""Two networks layer by layer in one runtime, as a report shows them."""

import dataclasses
import json

import pytest

from slimcv import recipe
from slimcv.models import capture
from slimcv.profile.before_after import before_and_after
from slimcv.profile.inside import look
from slimcv.step import Context


@pytest.fixture(scope="module")
def separable(gated):
    """The network with separable convolutions."""
    copied = dataclasses.replace(gated, model=capture.copy(gated.model))
    context = Context(teacher=gated, data=None, workdir=None, threads=1, train_threads=1)
    step = recipe.step_class("depthwise_separable")(correct=False, absorb_norms=False)
    return step.apply(copied, context)


@pytest.mark.parametrize(("serve", "runtime"), [("eager_channels_last", "eager"), ("inductor", "openvino")])
def test_every_layer_stands_beside_what_came_in_its_place(gated, separable, limits, serve, runtime):
    found = before_and_after(gated, separable, serve=serve, threads=1, limits=limits)
    assert (found["runtime"], found["problem"]) == (runtime, None)
    assert found == json.loads(json.dumps(found))
    pairs = {pair["name"]: pair for pair in found["pairs"]}
    assert pairs["blocks.0.conv"]["before_ms"] > 0
    assert pairs["blocks.0.conv"]["after_ms"] > 0
    assert not any("pointwise" in name for name in pairs)
    for key, shown in (("original", "before_ms"), ("optimized", "after_ms")):
        whole = sum(layer["ms"] for layer in found[key]["layers"])
        assert sum(pair[shown] or 0.0 for pair in found["pairs"]) == pytest.approx(whole, rel=1e-3)
        multiplying = [layer for layer in found[key]["layers"] if layer["gflops"]]
        assert all(layer["bound"] and layer["roofline_share"] > 0 for layer in multiplying)
        assert found[key]["call_ms"] > 0
    assert found["limits"]["fp32_gflops"] == limits.fp32_gflops


def test_what_a_runtime_does_not_take_is_told(gated, limits):
    wrong = dataclasses.replace(gated, details={"inference_precision": "no such precision"})
    found = before_and_after(gated, wrong, serve="openvino", threads=1, limits=limits)
    assert "OpenVINO does not take the network" in found["problem"]


def test_without_limits_layers_have_times_alone(gated):
    found = look(gated, runtime="eager", threads=1)
    assert all(layer.ms >= 0 and layer.roofline_share is None for layer in found.layers)
