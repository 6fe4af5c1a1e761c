"""A profiled training as data: what a step is made of, what was tried, and what to change."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

from slimcv.profile.layers import SCHEMA_VERSION, Advice

DECODE, AUGMENT, FORWARD, BACKWARD = "decode", "augment", "forward", "backward"
OPTIMIZER, WAITING = "optimizer", "waiting"


@dataclass(frozen=True)
class Part:
    """One part of a step, in milliseconds and as a fraction (0 to 1) of it.

    `first_…` are those of the first epoch, whose pictures are decoded; later ones read them from the cache.
    """

    name: str
    ms: float
    share: float
    first_ms: float
    first_share: float


@dataclass(frozen=True)
class Tried:
    """Another way of doing the same: milliseconds a picture with it, and as it is, measured side by side."""

    name: str
    ms_each: float
    as_is_ms_each: float

    @property
    def gain(self) -> float:
        """How many times faster it is; below 1 where it is slower."""
        return self.as_is_ms_each / self.ms_each


@dataclass(frozen=True)
class Teacher:
    """What asking the original costs, in the form it is asked in. No part of the step has it.

    `how` is `cached` where it is asked once about all pictures in all `views`, mirror images, and its answers
    are kept, which takes `once_seconds`, and `live` where it is asked in every step about pictures as they
    were changed, which takes `live_step_ms`.
    """

    how: Literal["cached", "live"]
    form: str
    ms_each: float
    views: int
    once_seconds: float
    live_step_ms: float


@dataclass(frozen=True)
class BackwardKind:
    """Layers of one kind and their fraction (0 to 1) of the backward computation."""

    kind: str
    ms: float
    share: float


@dataclass(frozen=True)
class TrainingProfile:
    """Times are milliseconds a step of `batch` pictures, medians over `steps`, with the allocator tuned.

    `asked_batch` is what was asked for. The part `waiting` is all of a step that is in no other: the loss,
    Python, and time the process was not given. `busy_threads` are the cores that were computing, on average.
    `epoch_seconds` and `first_epoch_seconds`, the latter with decoding and both without the teacher, are
    extrapolated to all training `pictures`.
    `peak_rss_bytes` is the whole process's while training, `trained_bytes` what training added; None where
    the system does not tell. `remarks` say what was not measured and why.
    """

    model: dict[str, Any]
    pictures: int
    batch: int
    asked_batch: int
    steps: int
    threads: int
    precision: str
    parts: tuple[Part, ...]
    step_ms: float
    images_per_second: float
    busy_threads: float
    epoch_seconds: float
    first_epoch_seconds: float
    decode_ms_each: float
    teacher: Teacher | None
    peak_rss_bytes: int | None
    trained_bytes: int | None
    backward: tuple[BackwardKind, ...]
    tried: tuple[Tried, ...]
    advice: tuple[Advice, ...]
    remarks: tuple[str, ...]

    def part(self, name: str) -> Part:
        """One of the parts by its name."""
        return next(part for part in self.parts if part.name == name)

    def attempt(self, name: str) -> Tried | None:
        """What was tried under that name, None where it was not."""
        return next((one for one in self.tried if one.name == name), None)

    def as_json(self) -> dict[str, Any]:
        """The object `slimcv profile --training --format json` prints."""
        values = asdict(self)
        values["tried"] = [{**asdict(one), "gain": one.gain} for one in self.tried]
        return {"schema_version": SCHEMA_VERSION, "model": values.pop("model"), "training": values}
