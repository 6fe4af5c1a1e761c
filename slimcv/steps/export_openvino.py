"""An OpenVINO model (.xml, .bin), accepted once OpenVINO gives the network's own answers with it."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar, Literal

from pydantic import Field

from slimcv.step import Context, Stage, Step, Variant


class ExportOpenvino(Step):
    """An intermediate representation made by way of ONNX, any batch size; weights keep their precision.

    Raises Rejected where the network cannot be converted or answers differ (see slimcv.parity).
    """

    stage: ClassVar[Stage] = Stage.EXPORT
    artifact: ClassVar[str] = "openvino"
    lossless: ClassVar[bool] = True

    tolerance: float = Field(
        default=1e-4,
        gt=0,
        description="largest difference of an fp32 network's outputs, over the largest output",
    )

    precision: Literal["auto", "f32"] = Field(
        default="auto",
        description="what floats are computed in; auto: OpenVINO's choice, bf16 on CPUs made for it",
    )

    input_format: Literal["uint8-nhwc", "float-nchw"] = Field(
        default="uint8-nhwc",
        description="what the file is fed: decoded pixels, which it normalises itself, or normalised planes",
    )

    def apply(self, variant: Variant, context: Context) -> Variant:
        """The same network with its `.xml` among the artifacts."""
        from slimcv import parity

        details = {**variant.details, "input_format": self.input_format}
        if self.precision == "f32":
            details["inference_precision"] = "f32"
        variant = replace(variant, details=details)
        path, found = parity.export(variant, "openvino", context=context, tolerance=self.tolerance)
        return replace(
            variant,
            runtime="openvino",
            artifacts={**variant.artifacts, "openvino": path},
            details={**variant.details, "openvino": found},
        )
