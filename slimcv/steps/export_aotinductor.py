"""Machine code for this kind of CPU (AOTInductor), which needs no compiler where it runs."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

from pydantic import Field

from slimcv.errors import NotApplicable, SlimcvError
from slimcv.step import Context, Stage, Step, Variant


class ExportAotinductor(Step):
    """A package `.pt2`, compiled here, accepted once it gives the network's own answers.

    It is a program, so that it is served only where `--runtime aotinductor` asks for it. Raises NotApplicable
    without a C++ compiler, Rejected where compiling fails or answers differ (see slimcv.parity).
    """

    stage: ClassVar[Stage] = Stage.EXPORT
    artifact: ClassVar[str] = "aotinductor"
    lossless: ClassVar[bool] = True

    tolerance: float = Field(
        default=1e-3,
        gt=0,
        description="largest difference of an fp32 network's outputs, over the largest output",
    )

    def apply(self, variant: Variant, context: Context) -> Variant:
        """The same network with its package among the artifacts."""
        from slimcv import parity
        from slimcv.runtimes import inductor

        try:
            inductor.require_compiler()
        except SlimcvError as error:
            raise NotApplicable(error.message, error.hint) from error
        path, found = parity.export(variant, "aotinductor", context=context, tolerance=self.tolerance)
        return replace(
            variant,
            runtime="aotinductor",
            artifacts={**variant.artifacts, "aotinductor": path},
            details={**variant.details, "aotinductor": found},
        )
