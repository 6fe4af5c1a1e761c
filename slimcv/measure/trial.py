"""A variant and a candidate made from it, written for a runtime and timed in turns."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from slimcv import runtimes
from slimcv.errors import NotApplicable, Rejected, SlimcvError
from slimcv.measure import latency, size

if TYPE_CHECKING:
    from slimcv.step import Context, Variant

TRIALS = 5
"""Candidates timed at most in search of a latency."""

SIZE_GAIN = 0.99
"""With the objective `size`, a file at most this share of the one before counts as a gain."""

CLOSE = 0.1
"""Two shares nearer than this, one fast enough and one not, end the search."""


@dataclass(frozen=True)
class Outcome:
    """Median latencies in milliseconds; `faster` where the gain is larger than the measured spread.

    `least_share` is the lowest share of the time before that the 95 % interval holds. `smaller` where the
    recipe is for size and the file is a gain in that.
    """

    before_ms: float
    after_ms: float
    faster: bool
    least_share: float = 0.0
    smaller: bool = False

    @property
    def share(self) -> float:
        """The candidate's latency over that of the variant before."""
        return self.after_ms / self.before_ms

    def __str__(self) -> str:
        return f"{self.before_ms:.3g} → {self.after_ms:.3g} ms"


class Trial:
    """Times candidates against one variant, in the runtime and with the threads of the context."""

    def __init__(self, variant: Variant, context: Context) -> None:
        self._variant = variant
        self._context = context
        self._before: Path | None = None

    def of(self, candidate: Variant) -> Outcome:
        """Both, timed in turns. Raises Rejected where the runtime does not take the candidate."""
        runtime, threads = self._context.runtime, self._context.threads
        if self._before is None:
            self._context.workdir.mkdir(parents=True, exist_ok=True)
            folder = Path(tempfile.mkdtemp(prefix="trial-", dir=self._context.workdir))
            self._before = runtimes.write(self._variant, runtime, folder / "before")
        try:
            path = runtimes.write(candidate, runtime, self._before.parents[1] / "candidate")
        except SlimcvError as error:
            if error.disk_fault:
                raise
            raise Rejected(error.message, error.hint) from error
        timings = latency.interleaved(
            {
                "before": latency.Contender(self._before, runtime, threads, self._variant.input),
                "candidate": latency.Contender(path, runtime, threads, candidate.input),
            }
        )
        before, after = timings["before"], timings["candidate"]
        gain = latency.ratio(before, after)
        smaller = saves(self._before, path, objective=self._context.objective)
        return Outcome(before.latency.p50, after.latency.p50, gain.low > 1.0, 1 / gain.high, smaller)


def saves(before: Path, after: Path, *, objective: str) -> bool:
    """Whether a file is a gain over the one before however slow it is: where the recipe is for `size`."""
    return objective == "size" and size.artifact_bytes(after) <= SIZE_GAIN * size.artifact_bytes(before)


def widest(timed: Callable[[float], Outcome], *, wanted: float) -> float:
    """The largest share of the work, of those tried, whose candidate takes at most `wanted` of the time.

    `timed` makes and times the candidate of a share; it raises NotApplicable where there is none. Between a
    share that is fast enough and one that is not, the next is half-way. Raises Rejected, with what was
    measured, where none is fast enough.
    """
    enough, too_much, share = 0.0, 1.0, wanted
    seen: list[str] = []
    while len(seen) < TRIALS and too_much - enough >= CLOSE:
        try:
            found = timed(share)
        except NotApplicable:
            if not seen:
                raise
            break
        seen.append(f"{share:.0%} of the MACs: {found}")
        if found.faster and found.share <= wanted:
            enough = share
        else:
            too_much = share
        share = (enough + too_much) / 2 if enough else _along_the_line(share, found.share, wanted)
    if not enough:
        raise Rejected(f"no candidate takes {wanted:.0%} of the time: " + "; ".join(seen))
    return enough


def _along_the_line(share: float, taken: float, wanted: float) -> float:
    """Where the time would be just below `wanted` if it grew evenly from this candidate to all the work."""
    slope = max(0.0, 1.0 - taken) / (1.0 - share)
    guess = share - (taken - 0.97 * wanted) / slope if slope else 0.0
    return min(0.95 * share, max(0.25 * share, guess))
