"""The rungs of `quantize_int8`: no more of them than the gate needs, and never a worse network for them."""

import time
from dataclasses import replace

import pytest

from slimcv.gate import Gate
from slimcv.steps.quantize_int8 import QuantizeInt8

UNREACHABLE = 1e-9


def rungs(variant):
    return variant.details["quantize_int8"]["rungs"]


def applied(handwriting, folder, *, gate=None, deadline=None, **parameters):
    context = replace(handwriting.context(folder), gate=gate, deadline=deadline)
    return QuantizeInt8(calibration_images=32, **parameters).apply(handwriting.fresh(), context)


@pytest.fixture(scope="module")
def climbed(handwriting, tmp_path_factory):
    """All rungs, because none is good enough."""
    return applied(handwriting, tmp_path_factory.mktemp("rungs"), max_error=UNREACHABLE)


def test_all_rungs_are_tried_in_order_and_reported_where_none_is_good_enough(climbed):
    assert [rung["name"] for rung in rungs(climbed)] == ["plain", "ranges", "bias", "mixed"]
    assert not any(rung["met"] for rung in rungs(climbed))
    assert all(rung["reason"] and rung["seconds"] > 0 for rung in rungs(climbed))
    assert "histogram" in rungs(climbed)[1]["reason"]
    assert "percentile" in rungs(climbed)[1]["reason"]


def test_a_rung_is_taken_only_where_it_is_better_than_the_best_before(climbed):
    best = float("inf")
    for rung in rungs(climbed):
        if rung["error"] is None:
            assert not rung["taken"]
        else:
            assert rung["taken"] == (rung["error"] < best)
            best = min(best, rung["error"])
    last = [rung for rung in rungs(climbed) if rung["taken"]][-1]
    assert last["int8_share"] == climbed.int8_mac_share >= 0.95
    assert climbed.details["quantize_int8"]["correct_bias"] == any(
        rung["taken"] for rung in rungs(climbed) if rung["name"] == "bias"
    )


def test_the_first_rung_is_enough_where_accuracy_keeps_the_gate(handwriting, tmp_path):
    made = applied(handwriting, tmp_path, gate=Gate(max_step_drop=20.0), max_error=UNREACHABLE)
    (plain,) = rungs(made)
    assert (plain["name"], plain["taken"], plain["met"]) == ("plain", True, True)
    assert "top-1" in plain["reason"]
    assert not made.details["quantize_int8"]["correct_bias"]


def test_few_pictures_are_asked_where_outputs_hardly_move(handwriting, tmp_path):
    made = applied(handwriting, tmp_path, gate=Gate(max_step_drop=1.0), max_error=10.0)
    (plain,) = rungs(made)
    assert plain["met"]
    assert "on 32 pictures" in plain["reason"]


def test_a_drop_below_the_original_counts_too(handwriting, tmp_path):
    gate = Gate(max_drop=20.0)
    assert len(rungs(applied(handwriting, tmp_path, gate=gate, max_error=UNREACHABLE))) == 1


def test_outputs_are_judged_where_one_picture_weighs_more_than_the_gate_leaves(handwriting, tmp_path):
    gate = Gate(max_step_drop=20.0)
    made = applied(handwriting, tmp_path, gate=gate, max_error=UNREACHABLE, judged_images=4, rungs=("bias",))
    assert [rung["name"] for rung in rungs(made)] == ["plain", "bias"]


@pytest.mark.parametrize("limit", ["budget", "deadline"])
def test_when_the_time_is_up_the_best_so_far_is_there(handwriting, tmp_path, limit):
    ended = {"budget": 1e-6} if limit == "budget" else {"deadline": time.perf_counter()}
    made = applied(handwriting, tmp_path, max_error=UNREACHABLE, **ended)
    plain, *others = rungs(made)
    assert plain["taken"]
    assert len(others) == 3
    assert all("time" in rung["reason"] and not rung["taken"] for rung in others)
    assert made.int8_mac_share == 1.0


def test_layers_stay_in_float_only_as_far_as_the_share_of_integers_allows(handwriting, tmp_path):
    made = applied(handwriting, tmp_path, max_error=UNREACHABLE, rungs=("mixed",), min_int8_share=1.0)
    mixed = rungs(made)[-1]
    assert not mixed["taken"]
    assert "no layer can be left in float" in mixed["reason"]
    assert made.details["quantize_int8"]["layers_left_in_float"] == []
    roomy = applied(handwriting, tmp_path, max_error=UNREACHABLE, rungs=("mixed",), min_int8_share=0.1)
    assert rungs(roomy)[-1]["taken"]
    assert roomy.details["quantize_int8"]["layers_left_in_float"]
    assert roomy.int8_mac_share < 1.0
