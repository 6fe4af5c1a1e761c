"""BatchNorms are folded into the layers beside them, wherever that leaves the outputs as they are."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

from pydantic import Field

from slimcv.errors import NotApplicable
from slimcv.step import Context, Gain, Stage, Step, Variant


class FuseConvBn(Step):
    """Backward into the layer before, forward into those after where no zero padding intervenes.

    Raises NotApplicable where no norm can be folded.
    """

    stage: ClassVar[Stage] = Stage.FUSE
    enabling: ClassVar[bool] = True

    absorb: bool = Field(
        default=False,
        description="also fold forward across zero padding: inexact at the border, so train afterwards",
    )

    @property
    def lossless(self) -> bool:  # type: ignore[override]
        """Exact unless norms are absorbed."""
        return not self.absorb

    def undoes(self, gained: Gain, *, recovers: bool) -> str | None:  # noqa: ARG002
        """Zeros stay zeros whatever they are multiplied with."""
        if gained == "clusters":
            return "folding a BatchNorm multiplies the weights of every channel by a number of its own"
        return None

    def apply(self, variant: Variant, context: Context) -> Variant:  # noqa: ARG002
        """The variant with as few norms as possible."""
        from slimcv import surgery
        from slimcv.models import capture

        capture.set_training(variant.model, False)
        folded = surgery.fold_norms(variant.model, variant.input)
        absorbed = surgery.absorb_norms(variant.model, variant.input) if self.absorb else 0
        left = surgery.norms_left(variant.model)
        if not folded + absorbed:
            reason = f"none of the {left} BatchNorms can be folded exactly" if left else "it has no BatchNorm"
            raise NotApplicable(f"nothing to fuse: {reason}")
        details = {"folded": folded, "absorbed": absorbed, "left": left}
        return replace(variant, artifacts={}, details={**variant.details, "fuse_conv_bn": details})
