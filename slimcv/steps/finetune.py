"""Train the network on the pictures, taught by the original and the labels."""

from __future__ import annotations

from typing import ClassVar

from slimcv.step import Context, Stage, Step, Variant
from slimcv.train.settings import FinetuneSettings


class Finetune(Step, FinetuneSettings):
    """Train the network on the pictures, taught by the original and the labels."""

    stage: ClassVar[Stage] = Stage.TRAIN
    needs_data: ClassVar[bool] = True

    def apply(self, variant: Variant, context: Context) -> Variant:
        """The trained variant; `details["finetune"]` says how the training went (see FinetuneResult)."""
        from slimcv.train import finetune

        return finetune(variant, context, self).variant
