"""What an epoch has come to so far."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any


@dataclass
class Tally:
    """Means over the pictures `seen` since `begun`, a `time.perf_counter` reading."""

    begun: float
    seen: int = 0
    right: int = 0
    total_loss: float = 0.0

    @property
    def loss(self) -> float:
        """Mean loss a picture."""
        return self.total_loss / self.seen

    @property
    def top1(self) -> float:
        """Percent."""
        return 100.0 * self.right / self.seen

    @property
    def seconds(self) -> float:
        """Time since the epoch began."""
        return time.perf_counter() - self.begun

    def add(self, loss: float, right: int, count: int) -> None:
        """Take in a batch's mean loss and its number of right answers."""
        self.seen += count
        self.right += right
        self.total_loss += loss * count

    def as_json(self) -> dict[str, Any]:
        """All that another process needs to go on counting."""
        return {
            "seconds": self.seconds, "seen": self.seen, "right": self.right, "total_loss": self.total_loss
        }  # fmt: skip

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Tally:
        """Go on with what `as_json` gave."""
        begun = time.perf_counter() - values["seconds"]
        return cls(begun, values["seen"], values["right"], values["total_loss"])
