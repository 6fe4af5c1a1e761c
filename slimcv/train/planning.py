"""What is measured and decided before the first step: precision, batch, and how the teacher is asked."""

from __future__ import annotations

import logging
from dataclasses import asdict, dataclass
from typing import Any

from torch.fx import GraphModule

from slimcv.data import Dataset
from slimcv.measure import room
from slimcv.step import Context, InputSpec
from slimcv.train import maps, sizing, teaching
from slimcv.train import precision as precisions
from slimcv.train.feed import Feed
from slimcv.train.precision import Precision
from slimcv.train.processes import group as processing
from slimcv.train.progress import Remarks
from slimcv.train.schedule import Allowance
from slimcv.train.settings import FinetuneSettings
from slimcv.train.state import State
from slimcv.train.teaching import Teaching

PROBE = 16
"""Pictures by which fp32 and bf16 are timed."""

log = logging.getLogger("slimcv")


@dataclass(frozen=True)
class TeacherCost:
    """What the teacher took: see FinetuneResult, and the number of pictures it was `asked` about."""

    how: str | None = None
    form: str | None = None
    top1: float | None = None
    seconds: float = 0.0
    asked: int = 0

    @property
    def images_per_second(self) -> float | None:
        """None where it was not asked."""
        return self.asked / self.seconds if self.seconds else None


@dataclass(frozen=True)
class Plan:
    """The decisions, which must be the same where a training is gone on with.

    `settings` have the batch that was chosen, `before` is what the teacher took before an interruption.
    """

    settings: FinetuneSettings
    precision: Precision
    teaching: Teaching | None
    before: TeacherCost = TeacherCost()

    @property
    def teacher(self) -> TeacherCost:
        """What the teacher took up to now, before an interruption and after it."""
        before, now = self.before, self.teaching
        if now is None:
            return before
        return TeacherCost(
            how=teaching.how(now),
            form=now.form or before.form,
            top1=now.top1,
            seconds=before.seconds + now.seconds,
            asked=before.asked + now.asked,
        )

    def as_json(self) -> dict[str, Any]:
        """What goes beside a training's state."""
        return {
            "batch": self.settings.batch_pictures,
            "accumulate": self.settings.accumulate,
            "precision": self.precision,
            "teacher": asdict(self.teacher),
        }


def decide(
    model: GraphModule,
    input: InputSpec,
    context: Context,
    data: Dataset,
    settings: FinetuneSettings,
    allowance: Allowance,
    remarks: Remarks,
) -> Plan:
    """Measure what is left to be measured. Raises SlimcvError where training does not fit the memory."""
    # Told before anything is computed, which leaves memory behind that is used again.
    free, processes = room.free_bytes(), processing.of(context)
    most = maps.most(model, maps.of(model, input), free, processes=processes.local_count)
    probe = settings.model_copy(update={"batch": max(2, min(PROBE, settings.batch_pictures, most))})
    first = next(Feed(data.train, input, probe, teaching=None, seed=0).epoch(1))
    try:
        with sizing.allocations():
            precision = precisions.choose(model, first, settings)
    except MemoryError:
        precision = "bf16"  # It needs the least; what fits is measured next.
    form = teaching.live_form(context, data, settings) if allowance.left() > 0 else None
    size = sizing.choose(
        model,
        data.train,
        input,
        settings,
        precision=precision,
        seconds_left=allowance.left(),
        timed=form is not None,
        remarks=remarks,
        free_bytes=free,
        processes=processes,
    )
    settings = settings.model_copy(update={"batch": size.batch, "accumulate": size.accumulate})
    _tell_rate(settings)
    taught = teaching.choose(
        context,
        data,
        settings,
        input=input,
        allowance=allowance,
        form=form,
        student_seconds=size.seconds_each,
    )
    return Plan(settings, precision, taught)


def again(
    saved: State, input: InputSpec, context: Context, data: Dataset, settings: FinetuneSettings
) -> Plan:
    """What was decided when an interrupted training began; `saved` is its state."""
    decided = saved.values["plan"]
    settings = settings.model_copy(update={name: decided[name] for name in ("batch", "accumulate")})
    before = TeacherCost(**decided["teacher"])
    taught = None
    if not saved.values["stopped"]:
        taught = teaching.again(context, data, settings, input=input, how=before.how, form=before.form)
    return Plan(settings, decided["precision"], taught, before)


def _tell_rate(settings: FinetuneSettings) -> None:
    if settings.lr is None and settings.lr_growth != 1.0:
        log.info(
            "the learning rate is %.2f times that for 32 pictures an update: the square root of %d / 32",
            settings.lr_growth,
            settings.batch_pictures * settings.accumulate,
        )
    elif settings.lr is not None and settings.batch_pictures * settings.accumulate != 32:
        log.info("the learning rate is %.2g as it was given, and not scaled with the batch", settings.lr)
