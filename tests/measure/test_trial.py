"""The search for the most work that is still fast enough."""

import pytest

from slimcv.errors import NotApplicable, Rejected
from slimcv.measure.trial import CLOSE, TRIALS, Outcome, widest


def linear(floor_ms: float, spread: float = 0.02):
    """A machine on which work takes time in proportion, above a floor; and what was asked of it."""
    asked = []

    def timed(share: float) -> Outcome:
        asked.append(share)
        after = floor_ms + (10.0 - floor_ms) * share
        return Outcome(10.0, after, after < (1 - spread) * 10.0)

    return timed, asked


@pytest.mark.parametrize(("floor_ms", "best"), [(0.0, 0.5), (2.0, 0.375), (4.0, 1 / 6)])
def test_the_most_work_that_is_fast_enough_is_found(floor_ms, best):
    timed, asked = linear(floor_ms)
    found = widest(timed, wanted=0.5)
    assert best - 2 * CLOSE < found <= best + 1e-9
    assert len(asked) <= TRIALS


def test_less_work_that_is_not_fast_enough_is_rejected_with_what_was_measured():
    timed, asked = linear(9.0)
    with pytest.raises(Rejected, match=r"50% of the time: 50% of the MACs: 10 → 9\.5 ms; ") as caught:
        widest(timed, wanted=0.5)
    assert caught.value.message.count("ms") == len(asked)


def test_a_gain_inside_the_spread_is_none():
    with pytest.raises(Rejected):
        widest(lambda share: Outcome(10.0, 9.4 + 0.1 * share, False), wanted=0.95)


def test_where_nothing_can_be_made_that_is_told():
    def timed(share):
        raise NotApplicable("no channels")

    with pytest.raises(NotApplicable):
        widest(timed, wanted=0.5)


def test_the_search_ends_where_no_more_work_can_go():
    def timed(share):
        if share < 0.4:
            raise NotApplicable("too little is left")
        return Outcome(10.0, 9.0, True)

    with pytest.raises(Rejected, match="50% of the MACs"):
        widest(timed, wanted=0.5)
