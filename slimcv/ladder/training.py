"""One row trained: surgery on the row before's form, the row's fine-tuning, and what both cost."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from slimcv import recipe, runtimes
from slimcv.data import Dataset, Split
from slimcv.data.cache import Decoded
from slimcv.data.folder import Keeping
from slimcv.errors import NotApplicable, Rejected
from slimcv.ladder.job import Job, Trained
from slimcv.measure import memory
from slimcv.models import capture, checkpoint
from slimcv.rounding import significant
from slimcv.step import Context, Stage, Variant
from slimcv.train import finetune
from slimcv.train.settings import FinetuneSettings

if TYPE_CHECKING:
    from slimcv.recipe import Entry

ORIGINAL = "checkpoints/000-original.pt2"
"""Where the parent left the model it was given, relative to the run directory."""

READING_STEPS = 4
"""Steps of an epoch that is only read; the second of two such epochs counts, when all is warm."""

READING_SECONDS = 300.0
"""A reading ends after that time, for bfloat16 that has to be emulated."""


def train(job: Job) -> Trained:
    """Make the row's network and write it as a checkpoint; see Job.

    Training is taken from the row's recipe. Where it is only read, the carried-over weights stay as they are.
    """
    runtimes.load_libraries("eager", threads=job.train_threads)
    baseline = memory.resident()
    folder = Path(job.folder)
    context = context_of(job)
    entries = recipe.load(job.recipe).entries if job.recipe else ()
    surgery = [entry for entry in entries if entry.step.stage < Stage.TRAIN]
    try:
        variant = _operated(surgery, context, forms=context.workdir / "forms", own=job.name)
    except NotApplicable as error:
        return Trained(None, notes=[f"left out: {error.message}"])
    trainings = [entry for entry in entries if entry.step.stage == Stage.TRAIN]
    if job.read_only:
        found = _read(variant, context, FinetuneSettings(epochs=2, budget=READING_SECONDS, **job.training))
    else:
        variant, found = _trained(variant, context, trainings)
    if found.peak_bytes:
        found = replace(found, peak_bytes=max(0, found.peak_bytes - baseline))
    if job.number == 0:
        return replace(found, checkpoint=ORIGINAL)
    if job.above is not None:
        variant = checkpoint.read(folder / job.above)
    relative = Path("checkpoints") / f"{job.number:03d}-{job.name}.pt2"
    checkpoint.save(variant, folder / relative)
    return replace(found, checkpoint=str(relative))


def context_of(job: Job) -> Context:
    """The original as teacher, and the pictures in the order of its outputs."""
    from slimcv import data

    folder = Path(job.folder)
    original = checkpoint.read(folder / ORIGINAL)
    cache = None if job.cache is None else Path(job.cache)
    return Context(
        teacher=original,
        data=data.load(
            job.data,
            seed=job.seed,
            classes=original.classes,
            input=original.input,
            cache=cache,
            cache_limit=job.cache_limit,
            keep=job.keep,
        ),
        workdir=folder / "work",
        threads=job.threads,
        train_threads=job.train_threads,
        seed=job.seed,
    )


def _operated(surgery: Sequence[Entry], context: Context, *, forms: Path, own: str) -> Variant:
    """The original after all of `surgery`, each form kept for the rows to come.

    What does not apply to this network is left out; raises NotApplicable where that is the last step, and
    the row `own` adds it.
    """
    variant, text = context.teacher, ""
    for entry in surgery:
        text += f"{entry.name} {entry.step.model_dump_json()}\n"
        form = forms / f"{hashlib.sha256(text.encode()).hexdigest()[:16]}.pt2"
        if form.is_file():
            variant = checkpoint.read(form)
            continue
        try:
            copied = replace(variant, model=capture.copy(variant.model))
            variant = entry.step.apply(copied, context)
        except NotApplicable:
            if entry is surgery[-1] and own in ("pooling", "separable"):
                raise
            continue
        forms.mkdir(parents=True, exist_ok=True)
        checkpoint.save(variant, form)
    return variant


def _trained(variant: Variant, context: Context, trainings: Sequence[Entry]) -> tuple[Variant, Trained]:
    """Trained by the recipe's entry; as it was where training diverged from the start."""
    if not trainings:
        return variant, Trained(None)
    try:
        variant = trainings[0].step.apply(variant, context)
    except Rejected as error:
        return variant, Trained(None, notes=[f"not trained: {error.message}"])
    return variant, _summarised(variant.details["finetune"])


def _read(variant: Variant, context: Context, settings: FinetuneSettings) -> Trained:
    """Two epochs of a few steps on the first pictures, scaled to all of them; what was learnt is dropped."""
    data = context.data
    if data is None:
        raise NotApplicable("training is timed on pictures", "give them with --data DIR")
    few = _first(data, READING_STEPS * settings.batch_pictures, folder=context.workdir / "reading")
    result = finetune(variant, replace(context, data=few), settings)
    found = _summarised(result.summary())
    speed = found.images_per_second or _unfinished_speed(result.summary(), len(few.train))
    return replace(
        found,
        images_per_second=speed,
        seconds_per_epoch=len(data.train) / speed if speed else None,
        epochs=0,
        read_steps=math.ceil(len(few.train) / settings.batch_pictures),
    )


def _summarised(finetuned: dict[str, Any]) -> Trained:
    notes = list(finetuned["remarks"])
    if finetuned["compiled"]:
        taken = significant(finetuned["compile_seconds"], 2)
        notes.append(f"compiled for training in {taken} s, before the first epoch and not counted in it")
    return Trained(
        None,
        seconds_per_epoch=finetuned["seconds_per_epoch"],
        images_per_second=finetuned["images_per_second"],
        peak_bytes=finetuned["peak_rss_bytes"],
        teacher_seconds=finetuned["teacher_seconds"],
        compile_seconds=finetuned["compile_seconds"],
        epochs=finetuned["epochs"],
        notes=notes,
    )


def _unfinished_speed(finetuned: dict[str, Any], count: int) -> float | None:
    """Images a second of an epoch that time ended."""
    epochs = [epoch for epoch in finetuned["history"] if epoch["share"] and epoch["seconds"]]
    return epochs[-1]["share"] * count / epochs[-1]["seconds"] if epochs else None


def _first(data: Dataset, count: int, *, folder: Path) -> Dataset:
    """The first training pictures, which are in a mixed order, and no tuning split: nothing is judged.

    The fingerprint is another one: the teacher's outputs for these pictures are not those for all.
    """
    keeping = Keeping(folder)
    train, tuning = _part(data.train, count, keeping), _part(data.tuning, 0, keeping)
    return replace(
        data, train=train, tuning=tuning, fingerprint=f"{data.fingerprint}, the first {len(train)}"
    )


def _part(split: Split, count: int, keeping: Keeping) -> Split:
    """The first pictures of a split, decoded on their own."""
    samples = split.samples[:count]
    decoded = Decoded(samples, keeping)
    return replace(split, samples=samples, labels=split.labels[:count], decoded=decoded)
