"""What is measured and decided before the first step: precision, batch, and how the teacher is asked."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from torch.fx import GraphModule

from slimcv.data import Dataset
from slimcv.measure import room
from slimcv.step import Context, InputSpec
from slimcv.train import asking, maps, sizing, teacher, teaching
from slimcv.train import precision as precisions
from slimcv.train.feed import Feed
from slimcv.train.precision import Precision
from slimcv.train.processes import group as processing
from slimcv.train.progress import Remarks
from slimcv.train.schedule import Allowance
from slimcv.train.settings import FinetuneSettings
from slimcv.train.state import State
from slimcv.train.teaching import Manner, Teaching

PROBE = 16
"""Pictures by which fp32 and bf16 are timed."""

log = logging.getLogger("slimcv")


@dataclass(frozen=True)
class TeacherCost:
    """How the teacher is asked and what it took: see FinetuneResult and Manner; `asked` counts pictures."""

    how: Literal["cached", "live"] | None = None
    form: str | None = None
    top1: float | None = None
    seconds: float = 0.0
    asked: int = 0
    views: tuple[int, ...] = ()

    @property
    def images_per_second(self) -> float | None:
        """None where it was not asked."""
        return self.asked / self.seconds if self.seconds else None

    def and_then(self, seconds: float, asked: int) -> TeacherCost:
        """With what more it took."""
        return replace(self, seconds=self.seconds + seconds, asked=self.asked + asked)


@dataclass(frozen=True)
class Plan:
    """The decisions, which must be the same where a training is gone on with.

    `settings` have the batch that was chosen; `before` is how the teacher is asked, and what it took before
    an interruption.
    """

    settings: FinetuneSettings
    precision: Precision
    before: TeacherCost = TeacherCost()
    teaching: Teaching | None = None

    @property
    def teacher(self) -> TeacherCost:
        """What the teacher took up to now, before an interruption and after it."""
        before, now = self.before, self.teaching
        if now is None:
            return before
        total = before.and_then(now.seconds, now.asked)
        return replace(total, form=now.form or before.form, top1=now.top1)

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
) -> tuple[Plan, Manner | None]:
    """Measure what is left to be measured, up to the manner in which the teacher is to be asked.

    Raises SlimcvError where training does not fit the memory.
    """
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
    manner = teaching.choose(
        context, data, settings, allowance=allowance, form=form, student_seconds=size.seconds_each
    )
    if manner is None:
        return Plan(settings, precision), None
    form_name = None if manner.form is None else manner.form.name
    before = TeacherCost(manner.how, form_name, views=manner.views)
    return Plan(settings, precision, before), manner


def again(
    saved: State, context: Context, data: Dataset, settings: FinetuneSettings
) -> tuple[Plan, Manner | None]:
    """What was decided when an interrupted training began; `saved` is its state, or its plan alone."""
    decided = saved.values["plan"]
    settings = settings.model_copy(update={name: decided[name] for name in ("batch", "accumulate")})
    before = TeacherCost(**decided["teacher"])
    plan = Plan(settings, decided["precision"], replace(before, views=tuple(before.views)))
    if before.how is None or saved.values["stopped"]:
        return plan, None
    views = plan.before.views
    if before.how == "cached" and teacher.answered(context, data.train, views=views):
        return plan, Manner("cached", None, views)
    form = None if before.form is None else asking.named(context, before.form)
    return plan, Manner(before.how, form, views)


def taught(
    plan: Plan,
    manner: Manner | None,
    context: Context,
    data: Dataset,
    *,
    input: InputSpec,
    noted: Callable[[Plan], None],
) -> Plan:
    """The plan with what the teacher says, for a student of this `input`.

    `noted` is told the plan with what asking took so far, whenever answers were put on disk.
    """
    if manner is None:
        return plan

    def note(seconds: float, asked: int) -> None:
        noted(replace(plan, before=plan.before.and_then(seconds, asked)))

    said = teaching.taught(context, data, plan.settings, manner, input=input, noted=note)
    return replace(plan, before=TeacherCost()) if said is None else replace(plan, teaching=said)


def _tell_rate(settings: FinetuneSettings) -> None:
    if settings.lr is None and settings.lr_growth != 1.0:
        log.info(
            "the learning rate is %.2f times that for 32 pictures an update: the square root of %d / 32",
            settings.lr_growth,
            settings.batch_pictures * settings.accumulate,
        )
    elif settings.lr is not None and settings.batch_pictures * settings.accumulate != 32:
        log.info("the learning rate is %.2g as it was given, and not scaled with the batch", settings.lr)
