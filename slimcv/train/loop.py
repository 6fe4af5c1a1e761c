"""Fine-tuning from beginning to end: ask the teacher, train, keep the best weights."""

from __future__ import annotations

import dataclasses
import hashlib
import logging
import math
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch.fx import GraphModule

from slimcv.data import Dataset
from slimcv.errors import NotApplicable, SlimcvError
from slimcv.measure import allocator, memory
from slimcv.models import capture, resting
from slimcv.step import Context, InputSpec, Variant
from slimcv.train import planning, sizing, teacher
from slimcv.train import state as states
from slimcv.train.average import restore, without_denormals
from slimcv.train.compiled import compiled, share_of_eager
from slimcv.train.descent import Descent, Forward
from slimcv.train.feed import Feed
from slimcv.train.planning import Plan
from slimcv.train.precision import Precision
from slimcv.train.processes import group as processing
from slimcv.train.processes.leading import led
from slimcv.train.progress import Remarks
from slimcv.train.result import Epoch, FinetuneResult
from slimcv.train.schedule import Allowance
from slimcv.train.settings import FinetuneSettings
from slimcv.train.state import Keeper, State
from slimcv.train.training import OUT_OF_TIME, DivergedError, Training

STATES = "3"
"""What is kept of an unfinished training: to be raised where an older state cannot be gone on with."""

log = logging.getLogger("slimcv")


def run(variant: Variant, context: Context, settings: FinetuneSettings) -> FinetuneResult:
    """See slimcv.train.finetune."""
    processes = processing.of(context)
    data = _data(variant, context, settings)
    folder = context.workdir / f"training-{_key(variant, context, settings)}"
    states.tidy(folder)
    found = states.read(folder)
    saved = found if found and found.tensors else None  # Before the first step there is a plan alone.
    allowance = Allowance(
        settings.budget,
        context.deadline,
        spent=found.values["elapsed"] if found else 0.0,
        trained=saved.values["trained"] if saved else 0.0,
    )
    remarks = Remarks(found.values["remarks"] if found else [])
    keeper = Keeper(folder, settings.checkpoint_every, remarks)

    def note(plan: Plan) -> None:
        if saved is None and allowance.left() > 0:
            begun = {"elapsed": allowance.elapsed(), "stopped": "", "peak_bytes": 0}
            keeper.write(State({}, _beside(plan, remarks) | begun))

    model, seed = private(variant.model), context.seed + settings.seed
    with torch.no_grad():
        data.check_outputs(model(torch.zeros(1, *variant.input.shape)).shape[1])
    with tuned_for_training(context.train_threads, remarks):
        plan, manner = (
            planning.decide(model, variant.input, context, data, settings, allowance, remarks)
            if found is None
            else planning.again(found, context, data, settings)
        )
        note(plan)
        if allowance.left() <= 0:
            manner = None  # There will be no step for which the teacher would have to say something.
        plan = planning.taught(plan, manner, context, data, input=variant.input, noted=note)
        note(plan)
        feed = Feed(
            data.train, variant.input, plan.settings, teaching=plan.teaching, seed=seed, processes=processes
        )
        done = bool(saved and saved.values["stopped"])
        if plan.teacher.how != "live" and resting.rest(context.teacher.model, context.workdir):
            allocator.trim()  # It has said all that it is asked in this training.
        with nullcontext() if done else led(processes, variant, plan, seed=seed, saved=saved):
            forward, compiling = _stepper(model, variant.input, feed, plan, remarks, saved)
            descent = Descent(
                model, plan.settings, precision=plan.precision, forward=forward, processes=processes
            )
            training = Training(
                model, feed, data.tuning, variant.input, descent=descent, settings=plan.settings,
                allowance=allowance, seed=seed, processes=processes,
            )  # fmt: skip
            if saved is not None:
                training.resume(saved)
            peak_before = found.values["peak_bytes"] if found else 0
            memory.reset_peak()
            _train(training, plan, keeper, remarks, beside=asdict(compiling))
        peak = max(memory.peak(), peak_before)
        restore(model, training.best.weights)
        without_denormals(model)
    model.zero_grad(set_to_none=True)
    _lay_out(model, torch.contiguous_format)
    capture.set_training(model, False)
    allocator.trim()
    return _result(
        dataclasses.replace(variant, model=model, artifacts={}), training, plan, compiling,
        pictures=feed.count, seconds=allowance.elapsed(), peak=peak, remarks=remarks,
        processes=processes.count,
    )  # fmt: skip


def _data(variant: Variant, context: Context, settings: FinetuneSettings) -> Dataset:
    data = context.data
    if data is None:
        raise NotApplicable("fine-tuning needs pictures", "give them with --data DIR")
    if variant.precision == "int8":
        raise NotApplicable("an INT8 graph cannot be fine-tuned", "put finetune before quantize_int8")
    if len(data.train) < 2:
        raise NotApplicable(f"{len(data.train)} training pictures are too few", "give two or more")
    processes = processing.of(context).count
    if len(data.train) < 2 * processes:
        raise NotApplicable(
            f"{len(data.train)} training pictures are too few for {processes} processes", "start fewer"
        )
    if settings.batch != "auto" and settings.batch < 2 * processes:
        raise SlimcvError(
            f"a batch of {settings.batch} is too small for {processes} processes",
            f"set batch to {2 * processes} or more, which is two pictures for each, or start fewer",
        )
    if not any(parameter.numel() for parameter in variant.model.parameters()):
        raise NotApplicable("the model has no parameters to train")
    return data


def private(model: GraphModule) -> GraphModule:
    """A copy to train, nothing frozen, in eval mode; in channels_last, which depthwise convolutions need."""
    own = capture.copy(model)
    capture.set_training(own, False)
    own.requires_grad_(True)
    _lay_out(own, torch.channels_last)
    return own


def _lay_out(model: GraphModule, memory_format: torch.memory_format) -> None:
    model.to(memory_format=memory_format)  # type: ignore[call-overload]


@contextmanager
def tuned_for_training(threads: int, remarks: Remarks) -> Iterator[None]:
    """Allocator, threads, denormals and random numbers as training wants them; afterwards as they were."""
    if not allocator.tune():
        remarks.add(allocator.UNTUNED)
    with as_in_training(threads):
        yield


@contextmanager
def as_in_training(threads: int) -> Iterator[None]:
    """Threads, denormals and random numbers as training has them; afterwards as they were."""
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


def compiled_if_asked(
    model: GraphModule,
    input: InputSpec,
    feed: Feed,
    settings: FinetuneSettings,
    precision: Precision,
    remarks: Remarks,
) -> Forward | None:
    """The network compiled, None where that is not asked for, not possible or, for `auto`, no gain."""
    if not settings.compile:
        return None
    try:
        forward = compiled(model, input, sizes=feed.sizes, settings=settings, precision=precision)
    except SlimcvError as error:
        remarks.add(f"trained without torch.compile: {error.message}")
        return None
    if settings.compile == "auto":
        size = feed.sizes[-1]
        share = share_of_eager(model, forward, input, size=size, settings=settings, precision=precision)
        if share >= 1:
            remarks.add(
                f"trained without torch.compile, with which a step takes {share:.2f}× as long (measured)"
            )
            return None
    return forward


@dataclass(frozen=True)
class Compiling:
    """Whether torch.compile makes the steps, and what compiling has taken, earlier processes included."""

    compiled: bool = False
    compile_seconds: float = 0.0


def _stepper(
    model: GraphModule, input: InputSpec, feed: Feed, plan: Plan, remarks: Remarks, saved: State | None
) -> tuple[Forward | None, Compiling]:
    """The compiled network or None. What was measured before an interruption is not measured again."""
    asked, before = plan.settings, Compiling()
    if saved is not None:
        before = Compiling(saved.values["compiled"], saved.values["compile_seconds"])
        if saved.values["stopped"]:
            return None, before  # There is no step left to make.
        asked = asked.model_copy(update={"compile": before.compiled})
    begun = time.perf_counter()
    forward = compiled_if_asked(model, input, feed, asked, plan.precision, remarks)
    taken = time.perf_counter() - begun if forward is not None else 0.0
    return forward, Compiling(forward is not None, before.compile_seconds + taken)


def _key(variant: Variant, context: Context, settings: FinetuneSettings) -> str:
    """A name for this very training: an interrupted one is gone on with only where nothing has changed."""
    parts = (
        teacher.fingerprint(variant.model),
        teacher.fingerprint(context.teacher.model),
        repr((variant.input, context.teacher.input, context.seed, context.train_threads)),
        context.data.fingerprint if context.data is not None else "",
        settings.model_dump_json(exclude={"checkpoint_every"}),
        STATES,
    )
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def _train(
    training: Training, plan: Plan, keeper: Keeper, remarks: Remarks, *, beside: dict[str, Any]
) -> None:
    """Train to the end, leaving a state to go on from now and then.

    Where the loss diverged after something was gained, that is the end; before that the error is raised.
    """

    def keep() -> None:
        state = training.state()
        keeper.write(State(state.tensors, {**state.values, **_beside(plan, remarks), **beside}))

    if training.stopped:
        return
    while not training.stopped:
        if training.history and training.can_be_kept and (keeper.due or training.out_of_time):
            keep()
        try:
            with sizing.allocations():
                training.advance()
        except DivergedError as error:
            if training.best.epoch == 0:
                raise
            remarks.add(
                f"{error.message}: the weights of epoch {training.best.epoch} are kept; "
                f"to train on, {error.hint}"
            )
            training.stopped = "diverged"
        except MemoryError as error:
            raise SlimcvError(
                f"there was no memory left for epoch {training.epoch + 1}, step {training.step + 1}",
                "free some and give the same command again, without --overwrite, which goes on from the last "
                "state; or set a smaller batch",
            ) from error
    if training.stopped != OUT_OF_TIME:
        keep()


def _beside(plan: Plan, remarks: Remarks) -> dict[str, Any]:
    """What is kept beside the state of a training."""
    return {"plan": plan.as_json(), "remarks": remarks.lines, "peak_bytes": memory.peak()}


def _seconds_per_epoch(history: list[Epoch]) -> float | None:
    whole = [epoch.seconds for epoch in history if epoch.share == 1.0]
    each = statistics.median(whole[1:] or whole) if whole else math.nan
    return each if math.isfinite(each) else None


def _result(
    variant: Variant,
    training: Training,
    plan: Plan,
    compiling: Compiling,
    *,
    pictures: int,
    seconds: float,
    peak: int,
    remarks: Remarks,
    processes: int,
) -> FinetuneResult:
    """What is told of a training that has ended. `variant` is the trained one, `pictures` are an epoch's."""
    each, best, asked = _seconds_per_epoch(training.history), training.best, plan.teacher
    if asked.how == "live":
        log.info(
            "the live teacher took %.1f s of the training's %.1f s (%s)", asked.seconds, seconds, asked.form
        )
    result = FinetuneResult(
        variant=variant,
        epochs=training.epoch,
        seconds_per_epoch=each,
        best_top1=best.score.top1 if best.score else None,
        history=tuple(training.history),
        precision=plan.precision,
        teacher_seconds=asked.seconds,
        peak_rss_bytes=peak or None,
        best=best.epoch,
        averaged=best.averaged,
        stopped=training.stopped,
        lr=training.peak_lr,
        images_per_second=pictures / each if each else None,
        teacher_top1=asked.top1,
        seconds=seconds,
        batch=plan.settings.batch_pictures,
        accumulate=plan.settings.accumulate,
        compiled=compiling.compiled,
        compile_seconds=compiling.compile_seconds,
        teacher=asked.how,
        teacher_form=asked.form,
        teacher_images_per_second=asked.images_per_second,
        teacher_share=asked.seconds / seconds if seconds else 0.0,
        remarks=tuple(remarks.lines),
        processes=processes,
    )
    details = {**variant.details, "finetune": result.summary()}
    return dataclasses.replace(result, variant=dataclasses.replace(variant, details=details))
