"""Train the network on the pictures, taught by the original and the labels."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

from slimcv.step import Context, Gain, Stage, Step, Variant
from slimcv.train.settings import FinetuneSettings


class Finetune(Step, FinetuneSettings):
    """Train the network on the pictures, taught by the original and the labels."""

    stage: ClassVar[Stage] = Stage.TRAIN
    needs_data: ClassVar[bool] = True
    trains: ClassVar[bool] = True

    def undoes(self, gained: Gain, *, recovers: bool) -> str | None:  # noqa: ARG002
        """By what its `preserve` leaves out."""
        return self.forgets(gained)

    def apply(self, variant: Variant, context: Context) -> Variant:
        """The trained variant; `details["finetune"]` says how the training went (see FinetuneResult).

        An INT8 graph is trained with its rounding (see slimcv.quantization.awareness), in float32, and that
        training's details are `finetune_int8`. There `preserve: auto` is what quantize_int8 was given,
        because hardly a graph of integers is without zeros and equal values.
        """
        from slimcv.train import finetune

        if variant.precision != "int8":
            return finetune(variant, context, self).variant
        from slimcv.quantization import awareness

        model = awareness.trainable(variant.model)
        preserve, quantized = self.preserve, variant.details.get("quantize_int8", {})
        if preserve == "auto":
            preserve = tuple(quantized.get("preserve", ()))
        settings = self.model_copy(update={"precision": "fp32", "preserve": preserve})
        trained = finetune(replace(variant, model=model, precision="fp32"), context, settings).variant
        return replace(
            trained,
            model=awareness.stored(trained.model, variant.model, mantissa_bits=quantized.get("scale_bits")),
            precision="int8",
            details={**variant.details, "finetune_int8": trained.details["finetune"]},
        )
