"""OpenVINO's own 8-bit form (NNCF), another candidate beside `quantize_int8`."""

from __future__ import annotations

import tempfile
from dataclasses import asdict, replace
from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field

from slimcv.step import Context, Gain, Stage, Step, Variant


class ExportNncf(Step):
    """Made by NNCF from the network in floats, with its own defaults but for the weights' range.

    Raises NotApplicable where NNCF is not installed, Rejected where it cannot quantise the network.
    """

    stage: ClassVar[Stage] = Stage.EXPORT
    artifact: ClassVar[str] = "openvino:nncf"
    needs_data: ClassVar[bool] = True
    quantizes: ClassVar[bool] = True

    calibration_images: int = Field(
        default=300, ge=1, description="training pictures that set the ranges of the activations"
    )
    reduce_range: Literal["auto"] | bool = Field(
        default="auto",
        description="weights of 7 bits, for CPUs whose 8-bit sums saturate; auto: where there is no VNNI",
    )
    target_isa: Literal["host", "avx2", "avx512", "avx512_vnni", "avx512_bf16", "amx"] = Field(
        default="host", description="what the CPU has that will serve the result; host: what this one has"
    )
    input_format: Literal["uint8-nhwc", "float-nchw"] = Field(
        default="uint8-nhwc",
        description="what the file is fed: decoded pixels, which it normalises itself, or normalised planes",
    )

    def undoes(self, gained: Gain, *, recovers: bool) -> str | None:  # noqa: ARG002
        """Its symmetric scales leave zeros zero."""
        if gained == "clusters":
            return "it gives every channel a scale of its own, which makes several integers of a shared value"
        return None

    def apply(self, variant: Variant, context: Context) -> Variant:
        """The same network with one more file among the artifacts."""
        from slimcv.data.normalisation import normalised
        from slimcv.measure import environment
        from slimcv.quantization import by_openvino, calibration
        from slimcv.runtimes import PIXELS

        pixels = calibration.pixels(variant, context, self.calibration_images)
        folder = Path(tempfile.mkdtemp(prefix="nncf-", dir=context.workdir))
        made = environment.integers_for(self.target_isa, self.reduce_range)
        details = {**variant.details, "input_format": self.input_format, self.artifact: asdict(made)}
        fed = pixels if self.input_format == PIXELS else normalised(pixels, variant.input)
        path = by_openvino.quantize(
            replace(variant, details=details), fed, folder, reduce_range=made.reduce_range
        )
        return replace(
            variant,
            runtime="openvino",
            artifacts={**variant.artifacts, self.artifact: path},
            details=details,
        )
