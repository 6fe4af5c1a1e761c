"""A variant and a candidate made from it, written for a runtime and timed in turns."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from slimcv import runtimes
from slimcv.errors import Rejected, SlimcvError
from slimcv.measure import latency

if TYPE_CHECKING:
    from slimcv.step import Context, Variant


@dataclass(frozen=True)
class Outcome:
    """Median latencies in milliseconds; `faster` where the gain is larger than the measured spread."""

    before_ms: float
    after_ms: float
    faster: bool

    @property
    def share(self) -> float:
        """The candidate's latency over that of the variant before."""
        return self.after_ms / self.before_ms


class Trial:
    """Times candidates against one variant, in the runtime and with the threads of the context."""

    def __init__(self, variant: Variant, context: Context) -> None:
        context.workdir.mkdir(parents=True, exist_ok=True)
        self._variant = variant
        self._context = context
        self._folder = Path(tempfile.mkdtemp(prefix="trial-", dir=context.workdir))
        self._before: Path | None = None

    def of(self, candidate: Variant) -> Outcome:
        """Both, timed in turns. Raises Rejected where the runtime does not take the candidate."""
        runtime, threads = self._context.runtime, self._context.threads
        if self._before is None:
            self._before = runtimes.write(self._variant, runtime, self._folder / "before")
        try:
            path = runtimes.write(candidate, runtime, self._folder / "candidate")
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
        return Outcome(before.latency.p50, after.latency.p50, latency.faster(before, after))
