"""Whether a candidate is fast enough beside the variant it was made of, and what its record says of that."""

from __future__ import annotations

from collections.abc import Mapping

from slimcv.gate import Verdict
from slimcv.instruments import BEFORE, CANDIDATE
from slimcv.measure import latency
from slimcv.rounding import digits, significant
from slimcv.step import Stage, Step


def judge_speed(step: Step, timings: Mapping[str, latency.Timing], *, gained: bool) -> Verdict:
    """Whether the speed of `candidate` over that of `before` is enough; `gained` says that it is a gain.

    Training is not there for speed, and an enabling step need only be no slower by more than the spread.
    """
    reason = in_words(timings)
    if step.enabling:
        slower = latency.faster(timings[CANDIDATE], timings[BEFORE])
        return Verdict(not slower, f"slower: {reason}" if slower else reason)
    if gained or step.stage == Stage.TRAIN:
        return Verdict(True, reason)
    return Verdict(False, f"no gain: {reason}, inside the spread")


def in_words(timings: Mapping[str, latency.Timing]) -> str:
    """How many times the speed before, with the digits that the spread of both leaves."""
    before, candidate = timings[BEFORE].latency, timings[CANDIDATE].latency
    meaningful = digits(before.spread, candidate.spread)
    return f"{significant(before.p50 / candidate.p50, meaningful)}× the speed before"
