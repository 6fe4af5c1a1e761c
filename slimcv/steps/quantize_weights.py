"""Weights alone become integers of 8, 4 or 2 bits: for a small file, without pictures; not for speed."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import ClassVar, Literal

from pydantic import Field

from slimcv.errors import NotApplicable
from slimcv.step import Context, Gain, Stage, Step, Variant

_PICTURES = 32

log = logging.getLogger("slimcv")


class QuantizeWeights(Step):
    """The file holds int8 weights; every runtime takes them back to floats and computes as before.

    It saves storage, not time. Raises NotApplicable where the network is INT8 already or has no layer.
    """

    stage: ClassVar[Stage] = Stage.QUANTIZE
    quantizes: ClassVar[bool] = True
    data_free: ClassVar[bool] = True
    trainable: ClassVar[bool] = False

    bits: Literal[8, 4, 2] = Field(
        default=8, description="range of the integers, which the file holds as int8 all the same"
    )
    per_channel: bool = Field(default=True, description="a scale for each output; false: one for each layer")
    correct_bias: bool = Field(
        default=True, description="with pictures, take out of each bias what rounding shifts the mean by"
    )
    preserve: tuple[Gain, ...] = Field(
        default=(), description="clusters: one scale for weights that share values; zeros always stay zero"
    )
    scale_bits: int | None = Field(
        default=None,
        ge=1,
        le=23,
        description="bits of mantissa that scales and biases keep, for a smaller packed file; 7 are those of "
        "bfloat16, null keeps all",
    )

    def undoes(self, gained: Gain, *, recovers: bool) -> str | None:  # noqa: ARG002
        """Symmetric scales leave zeros zero."""
        if gained == "sparsity" or gained in self.preserve or not self.per_channel:
            return None
        return "a scale for every channel makes several integers of a shared value"

    def apply(self, variant: Variant, context: Context) -> Variant:
        """The graph with integer weights; `details["quantize_weights"]` has the weights' error by layer."""
        import torch

        from slimcv.data.normalisation import normalised
        from slimcv.quantization import calibration, weights

        if variant.precision == "int8":
            raise NotApplicable("the network is INT8 already")
        pictures = None
        if self.correct_bias and context.data is not None and len(context.data.train):
            pixels = calibration.pixels(variant, context, _PICTURES)
            pictures = torch.from_numpy(normalised(pixels, variant.input))
        model, errors = weights.quantize(
            variant.model,
            bits=self.bits,
            per_channel=self.per_channel,
            preserve=self.preserve,
            pictures=pictures,
            mantissa_bits=self.scale_bits,
        )
        if not errors:
            raise NotApplicable("the network has no convolution or linear layer")
        log.info("quantize_weights: %d layers in %d bits", len(errors), self.bits)
        details = {
            "bits": self.bits,
            "per_channel": self.per_channel,
            "correct_bias": pictures is not None,
            "preserve": list(self.preserve),
            "scale_bits": self.scale_bits,
            "errors": {name: round(error, 5) for name, error in errors.items()},
        }
        return replace(
            variant,
            model=model,
            artifacts={},
            details={**variant.details, "quantize_weights": details},
        )
