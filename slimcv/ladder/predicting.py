"""One row served: the file its runtime runs, and what that file answers on val/."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from slimcv import recipe, runtimes
from slimcv.errors import NotApplicable, Rejected, SlimcvError
from slimcv.ladder.job import Job, Served
from slimcv.ladder.training import ORIGINAL, context_of
from slimcv.measure import size
from slimcv.measure.variant import Answers, answers, measurement
from slimcv.models import capture, checkpoint
from slimcv.results import Paired
from slimcv.step import Context, Stage, Variant
from slimcv.writing import write_text

UNASKED = "top-1 not asked: emulated bfloat16 is slow, and the weights are those of the row above"

_FIRST = "right.json"
"""Which pictures of val/ the first row gets right, for the rows after it."""

if TYPE_CHECKING:
    from slimcv.recipe import Entry


def predict(job: Job) -> Served:
    """Fuse and compile the row's network as its recipe says, write it, and measure it on val/.

    Parameters and MACs are those of the network that was trained, so that folding norms for prediction leaves
    them alone; bytes are those of the file. A network of the row above is not asked again, only timed in
    another precision. Where compiling fails, eager PyTorch serves the row and a note
    says why.
    """
    folder = Path(job.folder)
    context = context_of(job)
    trained = checkpoint.read(folder / (job.network or ORIGINAL))
    entries = recipe.load(job.recipe).entries if job.recipe else ()
    tail = [entry for entry in entries if entry.step.stage > Stage.TRAIN]
    served, notes = _finished(trained, context, tail)
    place = context.workdir / "rows" / f"{job.number:03d}-{job.name}"
    compiled = served.artifacts.get("inductor")
    path, runtime = (compiled, "inductor") if compiled else (_eager(served, place, job.precision), "eager")
    if job.above is not None:
        notes.append(UNASKED)
    try:
        found = None if job.above is not None else _answered(path, runtime, served, context)
    except SlimcvError as error:
        if error.disk_fault or runtime == "eager":
            raise
        notes.append(f"measured uncompiled: {error.message}")
        path, runtime = _eager(served, place, job.precision), "eager"
        found = _answered(path, runtime, served, context)
    figures = measurement(
        trained,
        runtime=runtime,
        size_bytes=size.artifact_bytes(path),
        threads=job.threads,
        given=found,
    )
    paired = None if found is None else _against_first(found, job, context.workdir / "rows" / _FIRST)
    figures = replace(figures, precision=job.precision, paired=paired)
    return Served(str(path.relative_to(folder)), runtime, figures.as_json(), notes)


def _against_first(found: Answers, job: Job, kept: Path) -> Paired | None:
    """Top-1 against the first row's on the same pictures; `kept` has what that got right."""
    if found.right is None:
        return None
    if job.number == 0:
        write_text(kept, json.dumps([int(right) for right in found.right]))
        return None
    if not kept.is_file():
        return None
    first = np.array(json.loads(kept.read_text("utf-8")), bool)
    return found.against(Answers(found.predictions, right=first)) if len(first) == len(found.right) else None


def _finished(variant: Variant, context: Context, tail: Sequence[Entry]) -> tuple[Variant, list[str]]:
    """What is done to a network after its training; what does not apply or fails its proof is noted."""
    notes = []
    for entry in tail:
        try:
            variant = entry.step.apply(replace(variant, model=capture.copy(variant.model)), context)
        except (NotApplicable, Rejected) as error:
            notes.append(f"{entry.name}: {error.message}")
            continue
        if entry.name == "fuse_conv_bn":
            folded = variant.details["fuse_conv_bn"]
            notes.append(f"folded for prediction: {folded['folded']} of {_norms(folded)} BatchNorms")
    return variant, notes


def _norms(folded: dict[str, int]) -> int:
    return folded["folded"] + folded["absorbed"] + folded["left"]


def _eager(variant: Variant, place: Path, precision: str) -> Path:
    return runtimes.write(replace(variant, precision=precision), "eager", place)


def _answered(path: Path, runtime: str, variant: Variant, context: Context) -> Answers:
    split = None if context.data is None else context.data.val
    return answers(
        path, runtime, variant.input, split=split, threads=context.train_threads, seed=context.seed
    )
