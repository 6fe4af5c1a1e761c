"""The learning rate: linear warm-up, then cosine or halving on a plateau, by steps or by the clock."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import Literal

PLATEAU_FACTOR = 0.5
PLATEAU_PATIENCE = 2
PLATEAU_THRESHOLD = 1e-3


@dataclass
class Schedule:
    """The learning rate as a function of progress (0 to 1), and of the tuning loss for a plateau.

    Warm-up and cosine are those of Loshchilov and Hutter 2017 ("SGDR") without restarts. On a plateau the
    rate is halved when the loss has not fallen by a thousandth for more than two epochs.
    """

    kind: Literal["cosine", "plateau"]
    peak: float
    warmup: float
    scale: float = 1.0
    lowest_loss: float = math.inf
    waited: int = 0

    def rate(self, progress: float) -> float:
        """The rate at that progress; never zero, so that every step counts."""
        progress = min(max(progress, 0.0), 1.0)
        if progress < self.warmup:
            return self.peak * (0.02 + 0.98 * progress / self.warmup)
        if self.kind == "plateau":
            return self.peak * self.scale
        annealed = (progress - self.warmup) / (1.0 - self.warmup)
        return self.peak * (0.001 + 0.999 * 0.5 * (1.0 + math.cos(math.pi * annealed)))

    def observe(self, loss: float) -> None:
        """Take note of an epoch's loss."""
        if loss < self.lowest_loss * (1.0 - PLATEAU_THRESHOLD):
            self.lowest_loss, self.waited = loss, 0
            return
        self.waited += 1
        if self.waited > PLATEAU_PATIENCE:
            self.scale, self.waited = self.scale * PLATEAU_FACTOR, 0


class Allowance:
    """The wall time a fine-tuning may take: its own budget, and the deadline of the run it belongs to.

    `spent` seconds were used before by an interrupted run of the same training, `trained` of them by its
    steps.
    """

    def __init__(
        self, budget: float | None, deadline: float | None, *, spent: float = 0.0, trained: float = 0.0
    ) -> None:
        self.begun = time.perf_counter() - spent
        own = math.inf if budget is None else self.begun + budget
        self.end = min(own, math.inf if deadline is None else deadline)
        self.reserve = 0.0
        self._trained_before = trained
        self._training_begun: float | None = None

    @property
    def limited(self) -> bool:
        """There is an end at all."""
        return math.isfinite(self.end)

    def elapsed(self) -> float:
        """Seconds since the beginning, those of an interrupted run included."""
        return time.perf_counter() - self.begun

    def left(self) -> float:
        """Seconds until training must give way to the last evaluation, which takes `reserve`."""
        return self.end - self.reserve - time.perf_counter()

    def begin_training(self) -> None:
        """From now on time counts as training."""
        self._training_begun = time.perf_counter() - self._trained_before

    def trained(self) -> float:
        """Seconds since training began."""
        return 0.0 if self._training_begun is None else time.perf_counter() - self._training_begun

    def share(self) -> float:
        """How much of the time for training is used up, 0 to 1; 0 without a limit."""
        if not self.limited:
            return 0.0
        whole = self.trained() + self.left()
        return 1.0 if whole <= 0 else min(1.0, self.trained() / whole)
