"""The gate: arithmetic on measurements."""

import pytest
from pydantic import ValidationError

from slimcv.gate import Gate, drop, judge, speedup
from slimcv.results import Latency, Measurement


def measured(top1=None, p50=None, agreement=None, size=None):
    latency = None if p50 is None else Latency(p50, p50 * 1.1, None, 50, 0.01)
    return Measurement(10, 0, 100, size_bytes=size, latency_ms=latency, top1=top1, agreement=agreement)


def test_a_drop_is_counted_against_the_original_not_the_variant_before():
    verdict = judge(
        Gate(max_drop=1), candidate=measured(93.5), original=measured(95.0), before=measured(94.0)
    )
    assert not verdict.accepted
    assert verdict.reason == "top-1 1.5 points below the original, max_drop is 1"


def test_a_drop_within_the_bound_is_accepted():
    assert judge(Gate(max_drop=1), candidate=measured(94.0), original=measured(95.0)).accepted


def test_a_better_candidate_meets_a_bound_of_zero():
    verdict = judge(Gate(max_drop=0), candidate=measured(96.0), original=measured(95.0))
    assert verdict.accepted
    assert "1.0 points above" in verdict.reason


def test_the_drop_of_one_step_is_counted_against_the_variant_before():
    gate = Gate(max_step_drop=1)
    assert not judge(gate, candidate=measured(90), original=measured(99), before=measured(92)).accepted
    assert judge(gate, candidate=measured(91.5), original=measured(99), before=measured(92)).accepted


def test_the_least_speedup_is_judged_on_median_latency():
    gate = Gate(min_speedup=4)
    assert judge(gate, candidate=measured(p50=2.5), original=measured(p50=10)).accepted
    assert not judge(gate, candidate=measured(p50=2.6), original=measured(p50=10)).accepted


def test_the_largest_size_is_judged_in_bytes():
    assert not judge(Gate(max_size=100), candidate=measured(size=101), original=measured()).accepted


def test_what_was_not_measured_is_named_and_not_held_against_the_candidate():
    verdict = judge(Gate(max_drop=1), candidate=measured(), original=measured(95.0))
    assert verdict.accepted
    assert verdict.reason == "max_drop not measured"


def test_without_labels_changed_answers_count_as_drop():
    assert drop(measured(agreement=98.0), measured()) == pytest.approx(2.0)
    assert not judge(Gate(max_drop=1), candidate=measured(agreement=98.0), original=measured()).accepted


def test_speedup_is_the_ratio_of_medians_or_unknown():
    assert speedup(measured(p50=2), measured(p50=10)) == 5
    assert speedup(measured(), measured(p50=10)) is None


@pytest.mark.parametrize("values", [{"max_drop": -1}, {"max_drop": 101}, {"min_speedup": 0}, {"unknown": 1}])
def test_bounds_out_of_range_are_refused(values):
    with pytest.raises(ValidationError):
        Gate(**values)
