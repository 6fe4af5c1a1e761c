"""Whether a candidate is fast enough beside the variant it was made of, and what its record says of that."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from slimcv.gate import Verdict
from slimcv.instruments import BEFORE, CANDIDATE
from slimcv.measure import latency
from slimcv.rounding import between
from slimcv.step import Stage, Step

AS_FAST = 0.98
"""A smaller loss of speed is worth a look at the accuracy; the fastest is chosen in the end all the same."""

NOISY = 1.2
"""Bounds of an interval that are so many times apart say more of the machine's other work than of a step."""


def timed(step: Step, take: Callable[[], Mapping[str, latency.Timing]]) -> Mapping[str, latency.Timing]:
    """What `take` measures in new processes, once more where a rejection by it would be luck.

    So it is for an enabling step found slower: where a process happens to lie in memory is not in the
    interval of its calls, and shifts a small network by more than such a step does. And for what is faster
    within an interval as wide as only a busy machine makes it.
    """
    timings = take()
    lucky = _slower(timings) if step.enabling else _hidden(timings)
    return take() if lucky else timings


def _hidden(timings: Mapping[str, latency.Timing]) -> bool:
    """Whether there may be a gain that the noise of this measurement hides."""
    found = latency.ratio(timings[BEFORE], timings[CANDIDATE])
    return found.low <= 1.0 < found.value and found.high > NOISY * found.low


def judge_speed(step: Step, timings: Mapping[str, latency.Timing], *, gained: bool) -> Verdict:
    """Whether the speed of `candidate` over that of `before` is enough; `gained` says that it is a gain.

    Training is not there for speed. An enabling step need only be no slower by more than the spread, another
    quantiser's form by no more than `AS_FAST`: accuracy on val/ may still prefer it.
    """
    if step.enabling:
        enough = not _slower(timings)
    else:
        enough = gained or step.stage == Stage.TRAIN or (bool(step.artifact) and _as_fast(timings))
    return Verdict(enough, in_words(timings) if enough else no_gain(timings))


def no_gain(timings: Mapping[str, latency.Timing]) -> str:
    """Why the candidate's speed is no gain: it is slower, or faster by no more than the measured spread."""
    reason = in_words(timings)
    return f"slower: {reason}" if _slower(timings) else f"no gain: {reason}, inside the spread"


def _as_fast(timings: Mapping[str, latency.Timing]) -> bool:
    return latency.ratio(timings[BEFORE], timings[CANDIDATE]).high >= AS_FAST


def _slower(timings: Mapping[str, latency.Timing]) -> bool:
    return latency.faster(timings[CANDIDATE], timings[BEFORE])


def in_words(timings: Mapping[str, latency.Timing]) -> str:
    """How many times the speed before, with its 95 % interval."""
    found = latency.ratio(timings[BEFORE], timings[CANDIDATE])
    return between(found.value, found.low, found.high, "the speed before")
