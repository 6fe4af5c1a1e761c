"""What original and result say to the pictures of val/, and how long the original would train."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from slimcv.measure.variant import Answers, answers, computed_exactly
from slimcv.shipping.contenders import original_file
from slimcv.train.pace import plain_seconds_per_epoch

if TYPE_CHECKING:
    from pathlib import Path

    from slimcv.run import Run
    from slimcv.step import Context, Variant

ORIGINAL_ANSWERS, SHIPPED_ANSWERS = "original-answers", "shipped-answers"
"""What the run remembers of the answers on val/."""


def original_answers(context: Context, run: Run) -> Answers:
    """The original's answers on val/ in eager PyTorch, kept with the run because they cost the most."""
    kept = run.recall(ORIGINAL_ANSWERS)
    if kept is None:
        found = answers_of(original_file(run), "eager", context.teacher, context)
        kept = {"predictions": found.predictions.tolist(), "top1": found.top1, "top5": found.top5}
        kept["right"] = None if found.right is None else found.right.tolist()
        run.remember(ORIGINAL_ANSWERS, kept)
    right = None if kept.get("right") is None else np.asarray(kept["right"], bool)
    return Answers(np.asarray(kept["predictions"]), kept["top1"], kept["top5"], right)


def original_pace(context: Context, run: Run) -> float | None:
    """Seconds an epoch of training the original would take, measured once a run."""
    if context.data is None:
        return None
    kept = run.recall("original-pace")
    if kept is None:
        pictures = len(context.data.train)
        kept = {"seconds_per_epoch": plain_seconds_per_epoch(context.teacher, pictures)}
        run.remember("original-pace", kept)
    return float(kept["seconds_per_epoch"])


def answers_of(path: Path, runtime: str, variant: Variant, context: Context) -> Answers:
    """What a file answers to val/, or to noise where there are no pictures."""
    split = None if context.data is None else context.data.val
    return answers(
        path,
        runtime,
        variant.input,
        split=split,
        threads=context.train_threads,
        seed=context.seed,
        exact=computed_exactly(variant, path),
    )
