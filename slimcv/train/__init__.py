"""Fine-tuning on the CPU: the loop, the teacher it learns from, its settings. Imports no torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from slimcv.step import Context, Variant
    from slimcv.train.result import FinetuneResult
    from slimcv.train.settings import FinetuneSettings


def finetune(variant: Variant, context: Context, settings: FinetuneSettings) -> FinetuneResult:
    """Train all parameters of `variant` on the training pictures, taught by `context.teacher` and the labels.

    `variant` is left as it is; the result holds a trained copy at the same input size. Raises NotApplicable
    where there is no data, too little of it, or an INT8 graph, and SlimcvError where training diverged before
    anything was gained or where two pictures a step do not fit into memory.

    In `context.workdir` it leaves a state at intervals: the same call goes on from there after an
    interruption, and does not train again what was trained to the end.
    """
    from slimcv.train import loop

    return loop.run(variant, context, settings)
