"""Dense k×k convolutions become depthwise + pointwise ones that carry the trained weights over."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar, Literal

from pydantic import Field

from slimcv.errors import NotApplicable
from slimcv.step import Context, Gain, Stage, Step, Variant


class DepthwiseSeparable(Step):
    """Singular value decomposition by input channel (Guo et al. 2018, "Network Decoupling"), then a fit.

    The fit brings each new layer near to what the old one gave on training pictures, or on synthetic ones
    without data. Raises NotApplicable where no convolution would take fewer MACs.
    """

    stage: ClassVar[Stage] = Stage.SURGERY

    rank: int = Field(default=1, ge=1, le=9, description="parallel depthwise convolutions for each dense one")
    min_channels: int = Field(
        default=1, ge=1, description="convolutions with fewer input channels stay dense"
    )
    include: tuple[str, ...] = Field(default=("*",), description="globs on the layers' names to convert")
    exclude: tuple[str, ...] | Literal["auto"] = Field(
        default=(),
        description="globs on the layers' names to leave; auto: those that bear it worst (slimcv "
        "sensitivity), a tenth of the weights at most",
    )
    absorb_norms: bool = Field(
        default=True,
        description="fold norms before a convolution into it, inexactly at its border",
    )
    normalise: bool = Field(
        default=False, description="a norm after each new pair, for training; fuse_conv_bn folds it exactly"
    )
    correct: bool = Field(default=True, description="fit the new layers to the old ones' outputs on pictures")
    refine: int = Field(
        default=2, ge=0, description="rounds of fitting that change the depthwise kernels too"
    )
    calibration_images: int = Field(
        default=64, ge=1, description="pictures the new layers are fitted on, fewer where memory would not do"
    )

    def undoes(self, gained: Gain, *, recovers: bool) -> str | None:  # noqa: ARG002
        """New weights have neither zeros nor shared values."""
        return "new layers take the place of the old ones, with weights that are fitted to their outputs"

    def draft(self) -> DepthwiseSeparable:
        """Nothing is fitted."""
        return self.model_copy(update={"correct": False})

    def apply(self, variant: Variant, context: Context) -> Variant:
        """The variant with every convolution replaced that a pair does with fewer MACs."""
        from slimcv import sensitivity, surgery
        from slimcv.models import capture

        model = variant.model
        capture.set_training(model, False)
        exclude = sensitivity.excluded(
            self.exclude, variant, context, treatment=sensitivity.separable(), step="depthwise_separable"
        )
        original = capture.copy(model) if self.correct else model
        absorbed = surgery.absorb_norms(model, variant.input) if self.absorb_norms else 0
        found = surgery.convertible(
            model,
            rank=self.rank,
            min_channels=self.min_channels,
            include=self.include,
            exclude=exclude,
        )
        if not found:
            raise NotApplicable(
                f"no dense convolution takes fewer MACs as depthwise + pointwise at rank {self.rank}"
            )
        conversions = surgery.make_separable(model, [node for node, _ in found], rank=self.rank)
        details: dict[str, Any] = {
            "convolutions": len(conversions),
            "norms_absorbed": absorbed,
            "exclude": list(exclude),
        }
        if self.correct or self.normalise:
            count = surgery.pictures_that_fit(original, variant.input, most=self.calibration_images)
            batches = surgery.calibration_batches(context, variant.input, count=count)
        if self.correct:
            fits = surgery.reconstruct(
                original,
                model,
                conversions=conversions,
                batches=batches,
                rounds=self.refine,
                seed=context.seed,
            )
            details["errors"] = {fit.name: [round(fit.carried, 4), round(fit.fitted, 4)] for fit in fits}
        if self.normalise:
            details["norms_added"] = surgery.insert_norms(model, conversions=conversions, batches=batches)
        return replace(variant, artifacts={}, details={**variant.details, "depthwise_separable": details})
