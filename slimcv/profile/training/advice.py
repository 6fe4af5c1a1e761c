"""What to change about a training, each piece of advice with the measurement it follows from."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from slimcv.profile import kinds
from slimcv.profile.layers import Advice
from slimcv.profile.training import findings as parts
from slimcv.profile.training.findings import TrainingProfile, Tried
from slimcv.report import figures
from slimcv.train.settings import FinetuneSettings

WORTH_SAYING = 0.1
"""Below a tenth of a step a part is not worth a change."""

WORTH_CHANGING = 1.08
"""A way that is faster by less may be so within the spread of a few steps."""

DOMINATES = 0.3
IDLE = 0.7
"""The fraction of the threads below which a step leaves them idle."""


def advise(found: TrainingProfile, settings: FinetuneSettings) -> TrainingProfile:
    """The profile with all advice that its measurements bear out, the largest share of a step first."""
    rules = (_memory_format, _teacher, _decoding, _changes, _batches, _allocator, _update, _waiting, _network)
    given = [advice for rule in rules for advice in rule(found, settings)]
    return dataclasses.replace(found, advice=tuple(sorted(given, key=lambda advice: -advice.share)))


def _memory_format(found: TrainingProfile, _: FinetuneSettings) -> Iterator[Advice]:
    backward = found.part(parts.BACKWARD).share
    depthwise = sum(kind.share for kind in found.backward if kind.kind == kinds.DEPTHWISE)
    contiguous = found.attempt("contiguous")
    if contiguous is None:
        return
    what = (
        f"depthwise convolutions take {figures.share(depthwise)} of the backward computation; "
        if depthwise >= DOMINATES
        else ""
    )
    computing = backward + found.part(parts.FORWARD).share
    if contiguous.gain >= WORTH_CHANGING:
        text = (
            f"{what}channels_last, which slimcv trains in, is {_times(contiguous.gain)} slower for this "
            f"network than contiguous tensors ({_each(contiguous)} a picture)"
        )
        yield Advice(text, None, computing * (1 - 1 / contiguous.gain), "time")
    elif contiguous.gain <= 1 / WORTH_CHANGING:
        text = (
            f"{what}channels_last is on, and contiguous tensors (NCHW) would take "
            f"{_times(1 / contiguous.gain)} as long ({_each(contiguous)} a picture); "
            "in a loop of your own: model.to(memory_format=torch.channels_last)"
        )
        yield Advice(text, None, depthwise * backward if what else 0.0, "time")
    elif what:
        text = f"{what}channels_last is on, contiguous tensors take as long ({_each(contiguous)} a picture)"
        yield Advice(text, None, depthwise * backward, "time")


def _teacher(found: TrainingProfile, settings: FinetuneSettings) -> Iterator[Advice]:
    teacher = found.teacher
    if teacher is None:
        return
    share = teacher.live_step_ms / (teacher.live_step_ms + found.step_ms)
    if share < WORTH_SAYING:
        return
    once = (
        f"{figures.duration(teacher.once_seconds)} in all against {figures.duration(found.epoch_seconds)} "
        "an epoch"
    )
    start = (
        f"the teacher ({teacher.form}) takes {figures.milliseconds(teacher.ms_each)} a picture, "
        f"{figures.milliseconds(teacher.live_step_ms)} a step"
    )
    images = f"{teacher.views} mirror images of each" if teacher.views > 1 else "each of them"
    if teacher.how == "live":
        why = "teacher: live was asked for" if settings.teacher == "live" else "pictures are changed"
        text = f"{start}, because {why}: teacher: cached asks once about {images}, {once}"
    else:
        text = f"{start} if it were asked every time: slimcv asks once about {images} and keeps it, {once}"
    yield Advice(text, None, share, "time")


def _decoding(found: TrainingProfile, _: FinetuneSettings) -> Iterator[Advice]:
    share = found.part(parts.DECODE).first_share
    if share < WORTH_SAYING:
        return
    decoding = 1e-3 * found.decode_ms_each * found.pictures
    read = found.part(parts.DECODE)
    verb = "dominates" if share >= DOMINATES else f"takes {figures.share(share)} of"
    text = (
        f"decoding {verb} the first epoch: {figures.milliseconds(found.decode_ms_each)} a picture on all "
        f"cores, {figures.duration(decoding)} in all; cached afterwards, where a batch is read in "
        f"{figures.milliseconds(read.ms)}: keep the cache (--cache DIR) between runs"
    )
    yield Advice(text, None, share, "time of the first epoch")


def _changes(found: TrainingProfile, settings: FinetuneSettings) -> Iterator[Advice]:
    share = found.part(parts.AUGMENT).share
    off = [one for one in found.tried if one.name.endswith(" off") and one.gain >= WORTH_CHANGING]
    for one in off:
        option = one.name.removesuffix(" off")
        text = (
            f"augmentation takes {figures.share(share)} of a step: without {option} "
            f"({option}: 0) a step is {_percent(one.gain)} faster"
        )
        yield Advice(text, None, 1 - 1 / one.gain, "time")
    if share >= WORTH_SAYING and not off:
        mirrored = "mirroring and normalising" if settings.flip or settings.vertical_flip else "normalising"
        text = (
            f"{mirrored} the pictures takes {figures.share(share)} of a step: the network is small beside "
            "its input, and a smaller one makes both cheaper"
        )
        yield Advice(text, "reduce_resolution", share, "time")


def _batches(found: TrainingProfile, settings: FinetuneSettings) -> Iterator[Advice]:
    batches = [one for one in found.tried if one.name.startswith("batch ")]
    best = max(batches, key=lambda one: one.gain, default=None)
    if best is not None and best.gain >= WORTH_CHANGING:
        text = f"{best.name} is {_percent(best.gain)} faster than {found.batch} ({_each(best)} a picture)"
        text += "; the learning rate follows by itself" if settings.lr is None else ""
        yield Advice(text, None, 1 - 1 / best.gain, "time")


def _allocator(found: TrainingProfile, _: FinetuneSettings) -> Iterator[Advice]:
    default = found.attempt("allocator as it is")
    if default is not None and default.gain <= 1 / WORTH_CHANGING:
        text = (
            f"the allocator is tuned, and without that a gradient would take {_times(1 / default.gain)} as "
            f"long ({_each(default)} a picture); in a loop of your own: slimcv.measure.allocator.tune() first"
        )
        yield Advice(text, None, 0.0, "time")


def _update(found: TrainingProfile, settings: FinetuneSettings) -> Iterator[Advice]:
    part = found.part(parts.OPTIMIZER)
    if part.share >= WORTH_SAYING:
        saved = part.share / 2
        text = (
            f"the optimizer takes {figures.share(part.share)} of a step ({figures.milliseconds(part.ms)}), "
            f"whatever the batch: accumulate: {2 * settings.accumulate} would save about "
            f"{figures.share(saved)}, a larger batch as well"
        )
        yield Advice(text, None, saved, "time")


def _waiting(found: TrainingProfile, _: FinetuneSettings) -> Iterator[Advice]:
    share = found.part(parts.WAITING).share
    if share >= WORTH_SAYING:
        text = (
            f"{figures.share(share)} of a step is spent in none of its parts: the loss, Python, and other "
            "programs on the same cores; a larger batch has fewer steps"
        )
        yield Advice(text, None, share, "time")
    if found.threads > 1 and found.busy_threads < IDLE * found.threads:
        text = (
            f"{figures.significant(found.busy_threads, 2)} of {found.threads} threads are busy on average: "
            "layers too small to be shared out, or other programs on the same cores"
        )
        yield Advice(text, None, 1 - found.busy_threads / found.threads, "threads")


def _network(found: TrainingProfile, _: FinetuneSettings) -> Iterator[Advice]:
    share = found.part(parts.FORWARD).share + found.part(parts.BACKWARD).share
    largest = found.backward[0] if found.backward else None
    if share < 1 - WORTH_SAYING or largest is None:
        return
    text = (
        f"the network itself takes {figures.share(share)} of a step, and {largest.kind} layers "
        f"{figures.share(largest.share)} of its backward computation: what makes an epoch shorter now is "
        "fewer MACs (slimcv profile without --training says where)"
    )
    yield Advice(text, None, share * largest.share, "time")


def _each(one: Tried) -> str:
    return f"{figures.milliseconds(one.ms_each)} instead of {figures.milliseconds(one.as_is_ms_each)}"


def _times(ratio: float) -> str:
    return f"{figures.significant(ratio, 2)}×"


def _percent(gain: float) -> str:
    return f"{100 * (gain - 1):.0f} %"
