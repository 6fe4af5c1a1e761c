"""Whether the teacher is asked, and when: once beforehand, or about every picture while training."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Literal

from slimcv.data import Dataset
from slimcv.step import Context, InputSpec
from slimcv.train import asking, teacher
from slimcv.train.asking import Form
from slimcv.train.feed import augmentation
from slimcv.train.live import Live
from slimcv.train.schedule import Allowance
from slimcv.train.settings import FinetuneSettings
from slimcv.train.teacher import SHARE_OF_TIME, Noted, Targets

BETTER_THAN_CHANCE = 1.5
"""A teacher below this multiple of chance on the training pictures has nothing to teach."""

log = logging.getLogger("slimcv")
Teaching = Targets | Live


@dataclass(frozen=True)
class Manner:
    """How the teacher is asked: `live`, or `cached` about `views` beforehand.

    `form` is None where all that is asked was answered before.
    """

    how: Literal["cached", "live"]
    form: Form | None
    views: tuple[int, ...] = ()


def live_form(context: Context, data: Dataset, settings: FinetuneSettings) -> Form | None:
    """What would run the teacher during training; None where that is not asked for, or would change nothing.

    Mirror images are all asked about beforehand. Of a picture that is cut, shifted or recoloured the teacher
    must see the same, and there are too many of those.
    """
    changed = bool(settings.crop or settings.shift or settings.colour)
    if settings.distill == 0.0 or settings.teacher == "cached":
        return None
    if settings.teacher == "auto" and not changed:
        return None
    return asking.fastest(context, data.train, pictures=settings.epochs * len(data.train))


def choose(
    context: Context,
    data: Dataset,
    settings: FinetuneSettings,
    *,
    allowance: Allowance,
    form: Form | None,
    student_seconds: float | None,
) -> Manner | None:
    """The teacher live in `form` where there is one and it is affordable, else what it says beforehand.

    `student_seconds` is what a picture takes in a training step. None where the teacher is not wanted or not
    affordable at all.
    """
    if settings.distill == 0.0:
        return None
    if form is not None and _affordable(form, data, settings, allowance, student_seconds):
        return Manner("live", form)
    flips = augmentation(settings).flips
    views, form = teacher.affordable(
        context, data.train, views=flips, seconds_left=allowance.left(), form=form
    )
    if not views:
        log.warning("there is no time to ask the teacher: only the labels are learnt from")
        return None
    return Manner("cached", form, views)


def taught(
    context: Context,
    data: Dataset,
    settings: FinetuneSettings,
    manner: Manner,
    *,
    input: InputSpec,
    noted: Noted | None = None,
) -> Teaching | None:
    """What the teacher says, asked in this manner; None where it is not worth listening to.

    `noted` is told what asking beforehand took, whenever answers were put on disk.
    """
    teaching: Teaching
    if manner.how == "live" and manner.form is not None:
        teaching = _live(context, data, settings, manner.form, input)
    else:
        every = settings.checkpoint_every
        teaching = teacher.targets(
            context, data.train, views=manner.views, form=manner.form, every=every, noted=noted
        )
        data.check_outputs(teaching.logits[0].shape[1])
    if teaching.top1 < BETTER_THAN_CHANCE * 100.0 / len(data.classes):
        log.warning(
            "the teacher is right on only %.1f %% of the training pictures: only the labels are learnt from",
            teaching.top1,
        )
        return None
    return teaching


def _live(context: Context, data: Dataset, settings: FinetuneSettings, form: Form, input: InputSpec) -> Live:
    own = context.teacher.input
    data.check_outputs(form.answers(asking.teacher_pixels(context, data.train)[:1]).shape[1])
    return Live(context, data.train, augmentation(settings), form=form, same_size=own.shape == input.shape)


def _affordable(
    form: Form,
    data: Dataset,
    settings: FinetuneSettings,
    allowance: Allowance,
    student_seconds: float | None,
) -> bool:
    """The teacher takes no more than half of the time, a step's or the whole training's."""
    if settings.teacher == "live":
        return True
    whole = settings.epochs * len(data.train) * form.seconds_each
    if allowance.limited and whole <= SHARE_OF_TIME * allowance.left():
        return True
    if student_seconds is not None and form.seconds_each <= student_seconds:
        return True
    log.info(
        "the teacher takes %.1f ms a picture, more than training: it is asked before, about whole pictures",
        1000 * form.seconds_each,
    )
    return False
