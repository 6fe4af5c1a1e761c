"""Axes: round numbers, and every value inside."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from slimcv.report.charts.scale import linear, logarithmic

VALUES = st.lists(st.floats(1e-3, 1e6), min_size=1, max_size=20)


@pytest.mark.parametrize(
    ("values", "ticks"),
    [([0, 10], (0, 2.5, 5, 7.5, 10)), ([-8, 0], (-8, -6, -4, -2, 0)), ([95.2, 97.1], (95.5, 96, 96.5, 97))],
)
def test_lines_stand_at_round_numbers(values, ticks):
    assert linear(values).ticks == pytest.approx(ticks)


def test_bars_begin_at_zero():
    axis = linear([3.0, 9.0], zero=True)
    assert axis.place(0.0) == 0.0
    assert axis.ticks[0] == 0.0


def test_a_logarithmic_axis_has_lines_at_one_two_and_five():
    assert logarithmic([2.0, 90.0]).ticks == pytest.approx((2, 5, 10, 20, 50, 100))


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(VALUES)
def test_every_value_has_its_place_in_order(values):
    for axis in (linear(values), linear(values, zero=True), logarithmic(values)):
        places = [axis.place(value) for value in sorted(values)]
        assert places == sorted(places)
        assert 0 <= places[0] <= places[-1] <= 100
        assert all(axis.low <= tick <= axis.high for tick in axis.ticks)


def test_values_that_are_all_alike_have_an_axis():
    assert 0 < linear([5.0, 5.0]).place(5.0) < 100
    assert 0 < logarithmic([5.0]).place(5.0) < 100
