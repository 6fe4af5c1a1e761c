"""Fine-tuning from beginning to end: ask the teacher, train, keep the best weights."""

from __future__ import annotations

import dataclasses
import hashlib
import logging
import math
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch.fx import GraphModule

from slimcv.data import Dataset
from slimcv.errors import NotApplicable
from slimcv.measure import allocator, memory
from slimcv.models import capture
from slimcv.step import Context, Variant
from slimcv.train import precision as precisions
from slimcv.train import state as states
from slimcv.train import teacher
from slimcv.train.average import restore, without_denormals
from slimcv.train.feed import Feed, augmentation
from slimcv.train.result import Epoch, FinetuneResult
from slimcv.train.schedule import Allowance
from slimcv.train.settings import FinetuneSettings
from slimcv.train.training import DivergedError, Training

STATE_SECONDS = 30.0
"""An interrupted training loses little more than this; writing the state more often would cost time."""

BETTER_THAN_CHANCE = 1.5
"""A teacher below this multiple of chance on the training pictures has nothing to teach."""

log = logging.getLogger("slimcv")


def run(variant: Variant, context: Context, settings: FinetuneSettings) -> FinetuneResult:
    """See slimcv.train.finetune."""
    data = _data(variant, context)
    folder = context.workdir / f"training-{_key(variant, context, settings)}"
    saved = states.read(folder)
    allowance = Allowance(
        settings.budget,
        context.deadline,
        spent=saved.values["elapsed"] if saved else 0.0,
        trained=saved.values["trained"] if saved else 0.0,
    )
    model, seed = _private(variant.model), context.seed + settings.seed
    with torch.no_grad():
        data.check_outputs(model(torch.zeros(1, *variant.input.shape)).shape[1])
    with _tuned_for_training(context.train_threads):
        targets = _targets(context, data, settings, allowance)
        feed = Feed(data.train, variant.input, settings, targets=targets, seed=seed)
        precision = precisions.choose(model, next(feed.epoch(1)), settings)
        training = Training(
            model, feed, data.tuning, variant.input,
            settings=settings, allowance=allowance, precision=precision, seed=seed,
        )  # fmt: skip
        if saved is not None:
            training.resume(saved)
        memory.reset_peak()
        stopped = _train(training, folder)
        peak = memory.peak()
        restore(model, training.best.weights)
        without_denormals(model)
    model.zero_grad(set_to_none=True)
    _lay_out(model, torch.contiguous_format)
    capture.set_training(model, False)
    states.remove(folder)
    allocator.trim()
    each, best = _seconds_per_epoch(training.history), training.best
    result = FinetuneResult(
        variant=variant,
        epochs=training.epoch,
        seconds_per_epoch=each,
        best_top1=best.score.top1 if best.score else None,
        history=tuple(training.history),
        precision=precision,
        teacher_seconds=targets.seconds if targets else 0.0,
        peak_rss_bytes=peak or None,
        best=best.epoch,
        averaged=best.averaged,
        stopped=stopped,
        lr=training.peak_lr,
        images_per_second=feed.count / each if each else None,
        teacher_top1=targets.top1 if targets else None,
        seconds=allowance.elapsed(),
    )
    details = {**variant.details, "finetune": result.summary()}
    trained = dataclasses.replace(variant, model=model, artifacts={}, details=details)
    return dataclasses.replace(result, variant=trained)


def _data(variant: Variant, context: Context) -> Dataset:
    data = context.data
    if data is None:
        raise NotApplicable("fine-tuning needs pictures", "give them with --data DIR")
    if variant.precision == "int8":
        raise NotApplicable("an INT8 graph cannot be fine-tuned", "put finetune before quantize_int8")
    if len(data.train) < 2:
        raise NotApplicable(f"{len(data.train)} training pictures are too few", "give two or more")
    if not any(parameter.numel() for parameter in variant.model.parameters()):
        raise NotApplicable("the model has no parameters to train")
    return data


def _private(model: GraphModule) -> GraphModule:
    """A copy to train, nothing frozen, in eval mode; in channels_last, which depthwise convolutions need."""
    own = capture.copy(model)
    capture.set_training(own, False)
    own.requires_grad_(True)
    _lay_out(own, torch.channels_last)
    return own


def _lay_out(model: GraphModule, memory_format: torch.memory_format) -> None:
    model.to(memory_format=memory_format)  # type: ignore[call-overload]


@contextmanager
def _tuned_for_training(threads: int) -> Iterator[None]:
    """Allocator, threads, denormals and random numbers as training wants them; afterwards as they were."""
    allocator.tune()
    before, flushed = torch.get_num_threads(), _flushes_denormals()
    torch.set_num_threads(threads)
    torch.set_flush_denormal(True)
    try:
        with torch.random.fork_rng(devices=[]):
            yield
    finally:
        torch.set_flush_denormal(flushed)
        torch.set_num_threads(before)


def _flushes_denormals() -> bool:
    return float(torch.tensor(2e-38) * 0.1) == 0.0


def _targets(
    context: Context, data: Dataset, settings: FinetuneSettings, allowance: Allowance
) -> teacher.Targets | None:
    """What the teacher says, None where it is not wanted, not affordable or not worth listening to."""
    if settings.distill == 0.0:
        return None
    found = teacher.targets(
        context, data.train, views=augmentation(settings).flips, seconds_left=allowance.left()
    )
    if found is None:
        log.warning("there is no time to ask the teacher: only the labels are learnt from")
        return None
    data.check_outputs(found.logits[0].shape[1])
    if found.top1 < BETTER_THAN_CHANCE * 100.0 / len(data.classes):
        log.warning(
            "the teacher is right on only %.1f %% of the training pictures: only the labels are learnt from",
            found.top1,
        )
        return None
    return found


def _key(variant: Variant, context: Context, settings: FinetuneSettings) -> str:
    """A name for this very training: an interrupted one is gone on with only where nothing has changed."""
    parts = (
        teacher.fingerprint(variant.model),
        teacher.fingerprint(context.teacher.model),
        repr((variant.input, context.teacher.input, context.seed, context.train_threads)),
        context.data.fingerprint if context.data is not None else "",
        settings.model_dump_json(),
    )
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def _train(training: Training, folder: Path) -> str:
    """Train to the end, leaving a state to go on from now and then. Says why it ended.

    Where the loss diverged after something was gained, that is the end; before that the error is raised.
    """
    written = time.perf_counter()
    stopped = ""
    while not stopped:
        try:
            stopped = training.train()
        except DivergedError as error:
            if training.best.epoch == 0:
                states.remove(folder)
                raise
            log.warning("%s: the weights of epoch %d are kept", error.message, training.best.epoch)
            return "diverged"
        if not stopped and time.perf_counter() - written >= STATE_SECONDS:
            states.write(folder, training.state())
            written = time.perf_counter()
    return stopped


def _seconds_per_epoch(history: list[Epoch]) -> float | None:
    whole = [epoch.seconds for epoch in history if epoch.share == 1.0]
    each = statistics.median(whole[1:] or whole) if whole else math.nan
    return each if math.isfinite(each) else None
