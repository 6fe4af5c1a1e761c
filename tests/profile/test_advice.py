"""Advice is drawn from predictions: what gains is advised, by the milliseconds it saves, and nothing else."""

import dataclasses

import pytest
from torch import nn

from slimcv.models import capture
from slimcv.profile import kinds, profile
from slimcv.profile.advice import Findings, advise
from slimcv.step import InputSpec, Variant

STEPS = (
    "compile", "depthwise_separable", "export_aotinductor", "export_onnx", "export_openvino", "fuse_conv_bn",
    "global_average_pool", "prune_channels", "quantize_int8", "quantize_weights", "reduce_resolution",
)  # fmt: skip
BEFORE_MS, BEFORE_BYTES = 10.0, 4_000_000


def foretold(**after):
    """Predictions that change nothing, but for the milliseconds afterwards, or those and the bytes."""
    found = []
    for step in STEPS:
        ms, bytes = after.get(step, BEFORE_MS), BEFORE_BYTES
        ms, bytes = ms if isinstance(ms, tuple) else (ms, bytes)
        found.append(
            {
                "step": step, "runtime": "openvino" if step == "export_openvino" else "eager",
                "before_ms": BEFORE_MS, "after_ms": ms, "before_bytes": BEFORE_BYTES, "after_bytes": bytes,
                "verdict": "no time left to time it" if ms is None else "", "problem": None,
            }
        )  # fmt: skip
    return found


def refused(predictions, step, problem="it does not apply"):
    return [{**one, "problem": problem} if one["step"] == step else one for one in predictions]


@pytest.fixture(scope="module")
def findings(limits):
    """A network whose dense layer reads a flattened map, half of its time in convolutions."""
    head = (nn.Flatten(), nn.Linear(16 * 32 * 32, 8))
    network = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), *head)
    input = InputSpec(3, 64, 64)
    variant = Variant(capture.capture(network.eval(), input), input)
    found = profile(variant, threads=1, repeats=1, limits=limits, extras=False)
    shares = {"0": 0.5, "4": 0.1}
    layers = [
        dataclasses.replace(layer, share=shares.get(layer.name, 0.4 / (len(found.layers) - 2)))
        for layer in found.layers
    ]
    totals = dataclasses.replace(found.totals, between_layers=0.0)
    shapes = capture.shapes(variant.model, input, batch=1)
    return Findings(variant.model, layers, totals, shapes, input.shape, has_int8_instructions=False)


def steps_of(advice):
    return [one.step for one in advice if one.saved_ms is not None]


def test_the_step_that_saves_most_milliseconds_comes_first_and_what_saves_none_is_left_out(findings):
    found = advise(findings, foretold(fuse_conv_bn=9.0, depthwise_separable=4.0, quantize_int8=6.0))
    assert steps_of(found) == ["depthwise_separable", "quantize_int8", "fuse_conv_bn"]
    assert [one.saved_ms for one in found[:3]] == [6.0, 4.0, 1.0]
    assert found[0].text.startswith(
        "depthwise_separable saves 6.0 of 10 ms (2.5× faster): 3×3 convolutions take 50.0 % of the time"
    )
    assert (found[0].share, found[0].of) == (0.6, "time")
    assert "no instructions for 8-bit products" in found[1].text
    slower = advise(findings, foretold(quantize_int8=10.5, export_openvino=9.8))
    assert steps_of(slower) == []


def test_what_the_profiled_runtime_cannot_gain_is_not_advised(findings):
    given = refused(
        foretold(export_openvino=5.0), "export_openvino", "these are the times of openvino already"
    )
    assert "export_openvino" not in {one.step for one in advise(findings, given)}


def test_of_steps_in_each_other_s_place_the_best_is_advised_and_the_others_are_named(findings):
    found = advise(findings, foretold(export_onnx=7.0, export_openvino=5.0, compile=8.0, prune_channels=6.0))
    assert steps_of(found) == ["export_openvino", "prune_channels"]
    assert "ms (2.0× faster), in openvino: " in found[0].text
    assert found[0].text.endswith("in its place export_onnx 3.0 ms, compile 2.0 ms")


def test_a_dense_layer_is_named_with_the_bytes_that_a_step_saves(findings):
    found = advise(findings, foretold(global_average_pool=(10.0, 40_000), quantize_weights=(10.0, 10**6)))
    assert steps_of(found) == ["global_average_pool"]
    (advice, *_) = found
    assert advice.text.startswith(
        "global_average_pool saves 3.96 MB of 4.00 MB of weights and no time worth naming: "
        "the dense layer '4' holds "
    )
    assert "flattened 16×32×32 map; averaging the 1024 positions first leaves about 128" in advice.text
    assert (advice.share, advice.of) == (pytest.approx(0.99), "bytes")
    dearer = advise(findings, foretold(global_average_pool=(12.0, 40_000)))
    assert "of weights and takes 2.0 ms more: " in dearer[0].text


def test_a_smaller_input_waits_for_pooling_where_a_dense_layer_fixes_the_size(findings):
    (hint,) = advise(findings, refused(foretold(), "reduce_resolution"))
    assert hint.text.startswith("not foretold: halving the 3×64×64 input to 32×32")
    assert "once global_average_pool is done" in hint.text
    assert (hint.step, hint.saved_ms, hint.saved_bytes) == ("reduce_resolution", None, None)
    (advice,) = advise(findings, foretold(reduce_resolution=2.5))
    assert advice.text.startswith("reduce_resolution saves 7.5 of 10 ms (4.0× faster): halving the 3×64×64")
    both = refused(refused(foretold(), "reduce_resolution"), "global_average_pool")
    assert advise(findings, both) == ()


def test_a_small_picture_is_not_told_to_shrink(findings):
    small = dataclasses.replace(findings, input=(3, 32, 32))
    assert advise(small, foretold(reduce_resolution=2.5)) == ()


def test_hints_without_a_prediction_stand_last_and_say_so(findings):
    slow = dataclasses.replace(findings, totals=dataclasses.replace(findings.totals, between_layers=0.3))
    found = advise(slow, foretold(depthwise_separable=None, fuse_conv_bn=9.0))
    assert found[0].step == "fuse_conv_bn"
    assert [(one.step, one.saved_ms) for one in found[1:]] == [
        ("depthwise_separable", None), ("export_openvino", None),
    ]  # fmt: skip
    assert found[1].text.startswith("not foretold (no time left to time it): 3×3 convolutions take 50.0 %")
    assert found[2].text.startswith("not foretold: 30.0 % of a call is spent between the layers")


def test_a_network_without_dense_convolutions_is_advised_too(findings):
    layers = [dataclasses.replace(layer, kind=kinds.DEPTHWISE) if layer.name == "0" else layer
              for layer in findings.layers]  # fmt: skip
    without = dataclasses.replace(findings, layers=layers)
    assert steps_of(advise(without, foretold(quantize_int8=5.0))) == ["quantize_int8"]
    assert steps_of(advise(dataclasses.replace(findings, layers=[]), foretold(compile=9.0))) == ["compile"]
