"""Paired accuracies: against exact enumeration and against scipy, whatever the counts."""

import math
from itertools import product

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy import stats
from scipy.optimize import minimize_scalar

from slimcv import paired

COUNTS = st.integers(0, 60)


@st.composite
def counted(draw):
    lost, gained = draw(COUNTS), draw(COUNTS)
    return lost, gained, lost + gained + draw(st.integers(1, 2000))


@given(COUNTS, COUNTS)
def test_the_p_value_is_the_exact_binomial_one_less_half_of_each_tail_that_was_seen(lost, gained):
    if lost == gained:
        assert paired.p_value(lost, gained) == 1.0
        return
    exact = stats.binomtest(lost, lost + gained).pvalue
    seen = stats.binom.pmf(lost, lost + gained, 0.5)
    assert paired.p_value(lost, gained) == pytest.approx(exact - seen, rel=1e-9)
    assert paired.p_value(lost, gained) == paired.p_value(gained, lost)


def test_thousands_of_pictures_that_differ_are_counted_exactly():
    assert paired.p_value(5000, 5200) == pytest.approx(math.erfc(200 / math.sqrt(2 * 10_200)), rel=0.02)
    assert paired.p_value(0, 5000) == 0.0


@given(st.integers(1, 12))
@settings(max_examples=12)
def test_the_test_hardly_ever_rejects_more_often_than_it_says(told_apart):
    """Over all outcomes of so many pictures; the mid-p form may exceed its level, but not by much."""
    rejected = sum(
        stats.binom.pmf(lost, told_apart, 0.5)
        for lost in range(told_apart + 1)
        if paired.p_value(lost, told_apart - lost) <= 0.05
    )
    assert rejected <= 0.071


def numerical_score(difference, lost, gained, pictures):
    """Tango's statistic with the nuisance share found by maximising the likelihood numerically."""

    def against(down):
        up = down + difference
        same = 1 - down - up
        parts = [(lost, down), (gained, up), (pictures - lost - gained, same)]
        return -sum(count * math.log(max(share, 1e-300)) for count, share in parts if count)

    low, high = max(0.0, -difference), (1 - difference) / 2
    down = minimize_scalar(against, bounds=(low, high), method="bounded", options={"xatol": 1e-12}).x
    variance = (2 * down + difference - difference**2) / pictures
    return ((gained - lost) / pictures - difference) / math.sqrt(variance)


@given(counted())
@settings(max_examples=60, deadline=None)
@example((0, 3, 40))
@example((7, 0, 40))
def test_the_bounds_are_the_differences_that_the_score_test_just_does_not_reject(counts):
    lost, gained, pictures = counts
    if lost + gained == 0:
        return
    low, high = paired.interval(lost, gained, pictures)
    assert -1 <= low <= (gained - lost) / pictures <= high <= 1
    assert numerical_score(low, *counts) == pytest.approx(1.96, abs=0.01)
    assert numerical_score(high, *counts) == pytest.approx(-1.96, abs=0.01)


@given(counted())
def test_what_one_network_gains_the_other_loses(counts):
    lost, gained, pictures = counts
    low, high = paired.interval(lost, gained, pictures)
    assert paired.interval(gained, lost, pictures) == pytest.approx((-high, -low), abs=1e-9)


@given(counted(), st.integers(2, 20))
def test_more_of_the_same_pictures_narrow_the_interval(counts, times):
    low, high = paired.interval(*counts)
    few, many = high - low, paired.interval(*(times * count for count in counts))
    assert many[1] - many[0] < few


def test_the_published_example_comes_out():
    """Airway hyper-responsiveness before and after stem cell transplantation: 1 and 7 of 21 children."""
    low, high = paired.interval(7, 1, 21)
    assert (round(low, 3), round(high, 3)) == (-0.517, -0.026)
    assert paired.p_value(7, 1) == pytest.approx(0.0391, abs=5e-5)


@pytest.mark.parametrize(("down", "up"), [(0.01, 0.01), (0.05, 0.02), (0.2, 0.3), (0.02, 0.0)])
def test_the_interval_holds_the_truth_as_often_as_it_says(down, up):
    """Exactly, over every outcome of 40 pictures."""
    pictures = 40
    held = 0.0
    for lost, gained in product(range(pictures + 1), repeat=2):
        if lost + gained > pictures:
            continue
        chance = stats.multinomial.pmf(
            [lost, gained, pictures - lost - gained], pictures, [down, up, 1 - down - up]
        )
        if chance < 1e-9:
            continue
        low, high = paired.interval(lost, gained, pictures)
        held += chance * (low <= up - down <= high)
    assert held >= 0.93


@pytest.mark.parametrize("counts", [(0, 0, 0), (3, 2, 4)])
def test_counts_that_cannot_be_are_refused(counts):
    with pytest.raises(ValueError, match="pictures"):
        paired.interval(*counts)


@given(st.floats(0.001, 0.2, allow_subnormal=False))
def test_so_many_pictures_show_a_bound_to_be_kept_and_one_fewer_do_not(bound):
    enough = paired.fewest_pictures(bound)
    assert paired.interval(0, 0, enough)[0] >= -bound - 1e-9
    if enough > 1:
        assert paired.interval(0, 0, enough - 1)[0] < -bound + 1e-9


def test_no_number_of_pictures_shows_that_nothing_at_all_is_lost():
    assert paired.fewest_pictures(0.0) is None
    assert paired.pictures_needed(3, 3, 200, bound=0.0) is None


@given(counted(), st.floats(0.0, 0.3, allow_subnormal=False))
@example(counts=(0, 0, 1132), bound=0.0078125)
def test_so_many_pictures_with_the_shares_as_found_decide(counts, bound):
    lost, gained, pictures = counts
    needed = paired.pictures_needed(lost, gained, pictures, bound=-bound)
    if needed is None or not 200 <= needed <= 10**6:
        return
    shares = [(count + 1) / (pictures + 2) for count in (lost, gained)]
    low, high = paired.interval(*(round(needed * share) for share in shares), needed)
    assert not low < -bound - 2 / needed <= high - 4 / needed


def test_so_many_pictures_decide_four_times_of_five():
    down, up, bound = 0.03, 0.02, -0.03
    needed = paired.pictures_needed(28, 18, 998, bound=bound)
    outcomes = stats.multinomial.rvs(needed, [down, up, 1 - down - up], size=400, random_state=0)
    decided = [
        not low < bound <= high for low, high in (paired.interval(a, b, needed) for a, b, _ in outcomes)
    ]
    assert 0.72 <= sum(decided) / len(decided) <= 0.88
