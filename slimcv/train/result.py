"""What came out of a fine-tuning."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from slimcv.step import Variant

if TYPE_CHECKING:
    from slimcv.train.evaluation import Score


@dataclass(frozen=True)
class Epoch:
    """One round through the training pictures. Losses are means, accuracies percent, None where not known.

    `share` is the part of the pictures that was seen, below 1 where time ended; `lr` the rate of the last
    step. `seconds` are those of the training steps, data loading included. `loss` and `train_top1` are of the
    training pictures as they were seen, `averaged_…` of the running average of the weights. Epoch 0 is the
    network before training.
    """

    number: int
    share: float
    lr: float
    seconds: float
    loss: float | None = None
    train_top1: float | None = None
    tuning_top1: float | None = None
    tuning_loss: float | None = None
    averaged_top1: float | None = None
    averaged_loss: float | None = None

    def judged(self, raw: Score | None, average: Score | None) -> Epoch:
        """The same epoch with what the tuning split says."""
        return dataclasses.replace(
            self,
            tuning_top1=raw.top1 if raw else None,
            tuning_loss=_finite(raw.loss) if raw else None,
            averaged_top1=average.top1 if average else None,
            averaged_loss=_finite(average.loss) if average else None,
        )

    def describe(self, epochs: int) -> str:
        """The line that is logged when the epoch is over."""
        parts = [] if self.loss is None else [f"loss {self.loss:.3f}", f"top-1 {self.train_top1:.1f} %"]
        if self.tuning_top1 is not None:
            parts.append(f"tuning top-1 {self.tuning_top1:.1f} %")
        if self.averaged_top1 is not None:
            parts.append(f"averaged {self.averaged_top1:.1f} %")
        if self.number:
            parts.append(f"{self.seconds:.1f} s")
        begin = f"epoch {self.number}/{epochs}" if self.number else "before training"
        return f"{begin}: {', '.join(parts)}" if parts else begin


@dataclass(frozen=True)
class FinetuneResult:
    """The trained variant and how it went.

    `epochs` counts whole epochs. `seconds_per_epoch` is the median of the whole epochs from the second on (of
    the first where there is only one): training steps with data loading, augmentation and a live teacher,
    without the evaluation on the tuning split. None where no epoch was completed. `best` is the epoch kept
    (0: as it was before training), `averaged` whether it is the running average of the weights; `best_top1`
    is on the tuning split, None where that is empty. `stopped` says why training ended, `lr` is the peak
    rate. `peak_rss_bytes` is the process's largest resident set while it trained, None where the system does
    not tell. `seconds` is all the time it took. `batch` pictures made a step and `accumulate` steps an update
    of the weights; `compiled` whether torch.compile made the steps, which it did in `compile_seconds` before
    the first epoch: they are in `seconds`, but in no epoch's.

    `teacher` is `cached` where the teacher was asked beforehand about whole pictures, `live` where it was
    asked about the changed ones in every step, None where only the labels counted. `teacher_form` is what ran
    it, `teacher_seconds` what it took, which are `teacher_share` (0 to 1) of `seconds` at
    `teacher_images_per_second`; 0 and None where all its outputs were on disk from before. `teacher_top1` is
    on the training pictures. `remarks` say what was otherwise than asked for, a sentence each. `processes`
    trained together, with a share of every batch each; the times are theirs together, the memory one's.
    """

    variant: Variant
    epochs: int
    seconds_per_epoch: float | None
    best_top1: float | None
    history: tuple[Epoch, ...]
    precision: str
    teacher_seconds: float
    peak_rss_bytes: int | None
    best: int
    averaged: bool
    stopped: str
    lr: float
    images_per_second: float | None
    teacher_top1: float | None
    seconds: float
    batch: int
    accumulate: int
    compiled: bool
    compile_seconds: float
    teacher: str | None
    teacher_form: str | None
    teacher_images_per_second: float | None
    teacher_share: float
    remarks: tuple[str, ...]
    processes: int = 1

    def summary(self) -> dict[str, Any]:
        """All but the variant, ready for JSON."""
        values = {key: value for key, value in vars(self).items() if key not in ("variant", "history")}
        history = [asdict(epoch) for epoch in self.history]
        return {**values, "remarks": list(self.remarks), "history": history}


def _finite(value: float) -> float | None:
    """JSON has no infinity and nothing that is no number."""
    return value if math.isfinite(value) else None
