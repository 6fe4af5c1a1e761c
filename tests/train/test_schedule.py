"""The learning rate over a training, and the time a training has."""

import time

import pytest

from slimcv.train.schedule import Allowance, Schedule


@pytest.fixture
def stopped_clock(monkeypatch):
    monkeypatch.setattr(time, "perf_counter", lambda: 1000.0)


def test_the_rate_rises_linearly_and_then_falls_like_a_cosine_to_almost_nothing():
    schedule = Schedule("cosine", peak=1.0, warmup=0.2)
    rates = [schedule.rate(step / 100) for step in range(101)]
    assert rates[10] == pytest.approx(0.51)
    assert max(rates) == rates[20] == 1.0
    assert rates[60] == pytest.approx(0.5, abs=0.01)
    assert 0 < rates[100] <= 0.001
    assert rates[:21] == sorted(rates[:21])
    assert rates[20:] == sorted(rates[20:], reverse=True)


def test_without_warm_up_the_rate_begins_at_its_peak():
    assert Schedule("cosine", peak=1.0, warmup=0.0).rate(0.0) == 1.0


def test_on_a_plateau_the_rate_is_halved():
    schedule = Schedule("plateau", peak=1.0, warmup=0.0)
    for loss in (1.0, 0.9, 0.9, 0.8999):
        schedule.observe(loss)
    assert schedule.rate(0.9) == 1.0
    schedule.observe(0.9)
    assert schedule.rate(0.9) == 0.5


def test_without_a_limit_no_share_of_the_time_is_ever_used():
    allowance = Allowance(None, None)
    allowance.begin_training()
    assert not allowance.limited
    assert allowance.share() == 0.0


def test_the_earlier_of_budget_and_deadline_counts(stopped_clock):
    assert Allowance(100.0, 1050.0).end == 1050
    assert Allowance(100.0, 5000.0).end == 1100


def test_time_spent_before_an_interruption_counts_against_the_budget(stopped_clock):
    allowance = Allowance(100.0, None, spent=60.0, trained=30.0)
    allowance.begin_training()
    assert allowance.left() == 40
    assert allowance.elapsed() == 60
    assert allowance.share() == pytest.approx(30 / 70)


def test_the_last_evaluation_has_its_time_set_aside(stopped_clock):
    allowance = Allowance(100.0, None)
    allowance.reserve = 10.0
    assert allowance.left() == 90
