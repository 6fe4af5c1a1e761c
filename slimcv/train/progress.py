"""How far the work has come, told now and then: for a line that is redrawn, and for lines that stay."""

from __future__ import annotations

import logging
import time

LOG_SECONDS = 5.0
"""Between two lines that stay."""

DRAW_SECONDS = 0.2
"""Between two states of a line that is redrawn."""

log = logging.getLogger("slimcv")


class Progress:
    """Logs a running state without flooding the log.

    Every few seconds at level INFO, in between at level DEBUG; both records have the attribute `live`, so
    that a terminal can draw each over the one before. `at_once` is for work that surely takes long.
    """

    def __init__(self, *, at_once: bool = False) -> None:
        self._drawn = -DRAW_SECONDS if at_once else time.perf_counter()
        self._logged = -LOG_SECONDS if at_once else self._drawn

    @property
    def due(self) -> bool:
        """Something may be told again; asking is cheaper than working out what."""
        return time.perf_counter() - self._drawn >= DRAW_SECONDS

    def tell(self, text: str, *, share: float | None = None) -> None:
        """Log `text`, where something is due; `share` (0 to 1) of the work is done."""
        now = time.perf_counter()
        if not self.due:
            return
        self._drawn = now
        level = logging.DEBUG
        if now - self._logged >= LOG_SECONDS:
            self._logged, level = now, logging.INFO
        log.log(level, "%s", text, extra={"live": True, "share": share})


class Remarks:
    """What happened otherwise than asked: logged once, and kept for the result."""

    def __init__(self, earlier: list[str]) -> None:
        self.lines = list(earlier)

    def add(self, text: str) -> None:
        """Say it, unless it was said before."""
        if text not in self.lines:
            self.lines.append(text)
            log.warning("%s", text)
