"""What a ladder's process is told and what it answers, as JSON."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Literal


@dataclass(frozen=True)
class Job:
    """One row's work in a process of its own.

    `folder` is the run directory; `data`, `cache`, `cache_limit` and `keep` are what slimcv.data.load takes;
    `recipe` is a file or None. `train` takes the row's weights to `checkpoints/`; where `above` is given they
    are taken from that checkpoint instead. `predict` makes the file that is served from the checkpoint
    `network` and asks it about val/. Checkpoints are relative to `folder`. `level` is that of the log lines
    the parent wants to have.
    """

    do: Literal["train", "predict"]
    number: int
    name: str
    folder: str
    data: str
    cache: str | None
    cache_limit: int | None
    keep: bool
    seed: int
    threads: int
    train_threads: int
    recipe: str | None
    training: dict[str, Any]
    read_only: bool
    precision: str
    above: str | None = None
    network: str | None = None
    level: int = 20

    def as_json(self) -> dict[str, Any]:
        """The line that is sent."""
        return asdict(self)


@dataclass(frozen=True)
class Trained:
    """How a row's training went.

    `checkpoint` is None where the row has nothing to change on this network, which the one note then says.
    `seconds_per_epoch` is that of all training pictures, read from `read_steps` steps where that is not None.
    `peak_bytes` is the largest resident set on top of PyTorch's own, None where the system does not tell.
    Neither `teacher_seconds` nor `compile_seconds`, before the first epoch, are part of an epoch's seconds.
    """

    checkpoint: str | None
    seconds_per_epoch: float | None = None
    images_per_second: float | None = None
    peak_bytes: int | None = None
    teacher_seconds: float = 0.0
    compile_seconds: float = 0.0
    epochs: int = 0
    read_steps: int | None = None
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Served:
    """The file a row predicts with, relative to the run directory, and its figures, a Measurement as JSON."""

    file: str
    runtime: str
    measurement: dict[str, Any]
    notes: list[str] = field(default_factory=list)
