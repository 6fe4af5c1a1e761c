"""The gate: arithmetic on measurements."""

from dataclasses import replace

import pytest
from pydantic import ValidationError

from slimcv.gate import Gate, drop, judge, pictures_to_show, speedup
from slimcv.measure.latency import Ratio
from slimcv.paired import interval
from slimcv.results import Latency, Measurement, Paired
from slimcv.rounding import points_between


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


@pytest.mark.parametrize("pictures", [100, 500, 1000, 600])
def test_a_drop_of_exactly_the_bound_is_within_it_whatever_floats_make_of_it(pictures):
    points = 5
    lost = points * pictures // 100
    for right in range(lost, pictures + 1):
        before, after = (measured(100 * (count / pictures)) for count in (right, right - lost))
        assert judge(Gate(max_drop=points), candidate=after, original=before).accepted
    assert not judge(
        Gate(max_drop=points), candidate=measured(100 * (lost - 1) / pictures), original=before
    ).accepted


def test_a_drop_of_few_pictures_of_many_is_not_said_to_be_none():
    verdict = judge(Gate(max_drop=0), candidate=measured(89.97), original=measured(90.0))
    assert verdict.reason == "top-1 0.030 points below the original, max_drop is 0"


def test_the_drop_of_one_step_is_counted_against_the_variant_before():
    gate = Gate(max_step_drop=1)
    assert not judge(gate, candidate=measured(90), original=measured(99), before=measured(92)).accepted
    assert judge(gate, candidate=measured(91.5), original=measured(99), before=measured(92)).accepted


@pytest.mark.parametrize(("counts", "decided"), [((2, 20, 200), True), ((5, 2, 200), False), (None, None)])
def test_the_drop_of_one_step_has_an_interval_of_the_pictures_both_were_asked(counts, decided):
    step = counts and Paired.counted(*counts)
    verdict = judge(
        Gate(max_step_drop=1), candidate=measured(91.5), original=measured(99), before=measured(92), step=step
    )
    assert (verdict.accepted, verdict.decided) == (True, decided)
    assert ("points below the variant before (" in verdict.reason) is (step is not None)


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
    asked = replace(measured(agreement=98.4375), synthetic_pictures=64)
    verdict = judge(Gate(max_drop=1), candidate=asked, original=measured())
    assert verdict.reason == (
        "no labels: 1.6 % of the answers on 64 synthetic pictures are not the original's, max_drop is 1"
    )


def test_speedup_is_the_ratio_of_medians_or_unknown():
    assert speedup(measured(p50=2), measured(p50=10)) == 5
    assert speedup(measured(), measured(p50=10)) is None


@pytest.mark.parametrize("values", [{"max_drop": -1}, {"max_drop": 101}, {"min_speedup": 0}, {"unknown": 1}])
def test_bounds_out_of_range_are_refused(values):
    with pytest.raises(ValidationError):
        Gate(**values)


def compared(lost, gained, pictures, top1=90.0):
    """The original, and a variant that differs from it on so many pictures."""
    paired = Paired.counted(lost, gained, pictures)
    variant = Measurement(10, 0, 100, top1=top1 + paired.difference, paired=paired)
    return {"candidate": variant, "original": measured(top1)}


@pytest.mark.parametrize(
    ("counts", "accepted", "decided"),
    [
        ((3, 2, 200), True, False),
        ((5, 2, 200), False, False),
        ((4, 3, 5000), True, True),
        ((60, 2, 1000), False, True),
        ((2, 20, 200), True, True),
    ],
)
def test_a_gate_is_decided_where_the_whole_interval_lies_on_one_side_of_its_bound(counts, accepted, decided):
    verdict = judge(Gate(max_drop=1), **compared(*counts))
    assert (verdict.accepted, verdict.decided) == (accepted, decided)
    assert verdict.undecided == (() if decided else ("max_drop",))
    assert (verdict.pictures_needed is None) == decided
    assert bool(verdict.doubt) != decided


def test_an_undecided_gate_says_how_many_pictures_there_were_and_how_many_are_needed():
    verdict = judge(Gate(max_drop=2), **compared(3, 2, 200))
    assert verdict.pictures_needed > 200
    assert verdict.doubt.startswith("not decidable with n = 200 pictures, about ")
    between = points_between(*(100 * bound for bound in interval(3, 2, 200)))
    assert verdict.reason == f"top-1 0.5 points below the original ({between})"


def test_a_bound_of_zero_that_is_just_kept_is_not_decided_by_any_number_of_pictures():
    verdict = judge(Gate(max_drop=0), **compared(4, 4, 200))
    assert verdict.accepted
    assert verdict.doubt == "not decidable with n = 200 pictures, no number of them would do"


def test_with_a_confidence_what_is_not_decided_is_missed():
    strict = Gate(max_drop=1, confidence=0.95)
    verdict = judge(strict, **compared(3, 2, 200))
    assert not verdict.accepted
    assert "not shown with 95 % confidence: not decidable with n = 200" in verdict.reason
    assert judge(strict, **compared(4, 3, 5000)).accepted
    assert not judge(strict, candidate=measured(agreement=100.0), original=measured()).accepted
    assert not judge(strict, candidate=measured(), original=measured(95.0)).accepted


def test_more_confidence_asks_for_more_pictures():
    sure, surer = (
        judge(Gate(max_drop=1, confidence=level), **compared(3, 2, 200)).pictures_needed
        for level in (0.9, 0.99)
    )
    assert sure < surer


def test_the_interval_of_the_speedup_decides_its_bound():
    speeds = {"candidate": measured(p50=2), "original": measured(p50=10)}
    gate = Gate(min_speedup=4)
    assert judge(gate, **speeds).decided is None
    assert judge(gate, **speeds, speed=Ratio(5, 4.5, 5.5)).decided is True
    assert judge(gate, **speeds, speed=Ratio(5, 3.9, 6.1)).undecided == ("min_speedup",)
    strict = Gate(min_speedup=4, confidence=0.95)
    assert not judge(strict, **speeds, speed=Ratio(5, 3.9, 6.1)).accepted
    assert judge(strict, **speeds, speed=Ratio(5, 4.5, 5.5)).accepted


def test_one_bound_that_is_clearly_broken_decides_whatever_the_others_say():
    gate = Gate(max_drop=1, max_size=10)
    sides = compared(3, 2, 200)
    big = Measurement.from_json({**sides["candidate"].as_json(), "size_bytes": 11})
    verdict = judge(gate, candidate=big, original=sides["original"])
    assert (verdict.accepted, verdict.decided, verdict.doubt) == (False, True, "")


def test_too_few_pictures_for_a_confidence_are_known_beforehand():
    assert pictures_to_show(Gate(max_drop=1)) is None
    assert pictures_to_show(Gate(max_drop=1, confidence=0.95)) == 381
