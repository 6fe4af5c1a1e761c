"""An ONNX file, accepted once ONNX Runtime gives the network's own answers with it."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar, Literal

from pydantic import Field

from slimcv.step import Context, Stage, Step, Variant


class ExportOnnx(Step):
    """One `.onnx` file with its weights inside, any batch size; an INT8 graph becomes a QDQ model.

    Raises Rejected where the network cannot be written as ONNX or answers differ (see slimcv.parity).
    """

    stage: ClassVar[Stage] = Stage.EXPORT
    artifact: ClassVar[str] = "onnxruntime"
    lossless: ClassVar[bool] = True

    tolerance: float = Field(
        default=1e-4,
        gt=0,
        description="largest difference of an fp32 network's outputs, over the largest output",
    )

    input_format: Literal["uint8-nhwc", "float-nchw"] = Field(
        default="uint8-nhwc",
        description="what the file is fed: decoded pixels, which it normalises itself, or normalised planes",
    )

    def apply(self, variant: Variant, context: Context) -> Variant:
        """The same network with its `.onnx` among the artifacts."""
        from slimcv import parity

        variant = replace(variant, details={**variant.details, "input_format": self.input_format})
        path, found = parity.export(variant, "onnxruntime", context=context, tolerance=self.tolerance)
        return replace(
            variant,
            runtime="onnxruntime",
            artifacts={**variant.artifacts, "onnxruntime": path},
            details={**variant.details, "onnxruntime": found},
        )
