"""Ways timed in turns: each warmed up, three rounds at least, compared round by round."""

import pytest

from slimcv.profile.contest import Contest, Way, contest


def test_every_way_has_as_many_rounds_and_one_call_that_does_not_count():
    calls = []
    ways = {name: Way(lambda name=name: calls.append(name)) for name in ("a", "b")}
    found = contest(ways, seconds=0.0)
    assert calls == ["a", "b", "a", "b", "b", "a", "a", "b"]
    assert [len(found.rounds_ms[name]) for name in ways] == [3, 3]


def test_each_call_is_prepared_anew():
    done = []
    contest({"a": Way(lambda: done.append("call"), lambda: done.append("prepare"))}, seconds=0.0)
    assert done == ["prepare", "call"] * 4


def test_a_gain_is_the_median_over_rounds_and_certain_only_if_most_rounds_agree():
    steady = Contest({"before": (2.0, 4.0, 6.0, 8.0), "after": (1.0, 2.0, 3.0, 4.0)})
    assert steady.ms("before") == 5.0
    assert steady.gain("before", "after") == pytest.approx(2.0)
    assert steady.faster("before", "after", least=1.5)
    shaky = Contest({"before": (2.0, 2.0, 2.0, 9.0), "after": (2.1, 1.9, 2.2, 3.0)})
    assert not shaky.faster("before", "after", least=1.1)
