"""torch.compile with frozen weights, accepted once the compiled network gives its own answers."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar, Literal

from pydantic import Field

from slimcv.errors import NotApplicable, SlimcvError
from slimcv.step import Context, Stage, Step, Variant


class Compile(Step):
    """The network as it is, meant to be run by Inductor, which compiles it on the machine that loads it.

    Raises NotApplicable without a C++ compiler, Rejected where compiling fails or answers differ (see
    slimcv.parity).
    """

    stage: ClassVar[Stage] = Stage.EXPORT
    artifact: ClassVar[str] = "inductor"

    precision: Literal["fp32", "bf16"] = Field(
        default="fp32", description="bf16 compiles a float network under autocast"
    )
    tolerance: float = Field(
        default=1e-3,
        gt=0,
        description="largest difference of an fp32 network's outputs, over the largest output",
    )

    @property
    def lossless(self) -> bool:  # type: ignore[override]
        """Within rounding unless bfloat16 is asked for."""
        return self.precision == "fp32"

    def apply(self, variant: Variant, context: Context) -> Variant:
        """The same network with the `.pt2` that Inductor compiles among the artifacts."""
        from slimcv import parity
        from slimcv.runtimes import inductor

        try:
            inductor.require_compiler()
        except SlimcvError as error:
            raise NotApplicable(error.message, error.hint) from error
        half = self.precision == "bf16" and variant.precision == "fp32"
        cast = replace(variant, precision="bf16") if half else variant
        path, found = parity.export(cast, "inductor", context=context, tolerance=self.tolerance)
        return replace(
            variant,
            runtime="inductor",
            artifacts={**variant.artifacts, "inductor": path},
            details={**variant.details, "inductor": found},
        )
