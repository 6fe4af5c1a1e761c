"""torch.compile with frozen weights, accepted once the compiled network gives its own answers."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

from pydantic import Field

from slimcv.errors import NotApplicable, SlimcvError
from slimcv.step import Context, Stage, Step, Variant


class Compile(Step):
    """The network as it is, meant to be run by Inductor, which compiles it on the machine that loads it.

    Raises NotApplicable without a C++ compiler, Rejected where compiling fails or answers differ (see
    slimcv.parity).
    """

    stage: ClassVar[Stage] = Stage.EXPORT
    lossless: ClassVar[bool] = True

    tolerance: float = Field(
        default=1e-3,
        gt=0,
        description="largest difference of an fp32 network's outputs, over the largest output",
    )

    def apply(self, variant: Variant, context: Context) -> Variant:
        """The same network with the `.pt2` that Inductor compiles among the artifacts."""
        from slimcv import parity
        from slimcv.runtimes import inductor

        try:
            inductor.require_compiler()
        except SlimcvError as error:
            raise NotApplicable(error.message, error.hint) from error
        path, found = parity.export(variant, "inductor", context=context, tolerance=self.tolerance)
        return replace(
            variant,
            runtime="inductor",
            artifacts={**variant.artifacts, "inductor": path},
            details={**variant.details, "inductor": found},
        )
