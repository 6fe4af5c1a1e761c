"""Dense layers and 1×1 convolutions become two thinner ones where that leaves fewer weights and MACs."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar, Literal

from pydantic import Field

from slimcv.errors import NotApplicable
from slimcv.step import Context, Gain, Stage, Step, Variant


class LowRank(Step):
    """Principal components of what each layer gives on pictures, not of its weights alone.

    A singular value decomposition weighted by the second moments of the layer's inputs (Zhang et al. 2015,
    "Accelerating Very Deep Convolutional Networks for Classification and Detection"). Raises NotApplicable
    where no layer would have fewer weights.
    """

    stage: ClassVar[Stage] = Stage.PRUNE

    energy: float = Field(
        default=0.98, gt=0, lt=1, description="share of the variance of a layer's outputs to keep"
    )
    rank: int | None = Field(default=None, ge=1, description="the same rank everywhere; wins over energy")
    min_gain: float = Field(
        default=0.25,
        ge=0,
        lt=1,
        description="share of a layer's weights, which is that of its MACs, that must go at the least",
    )
    round_to: int = Field(default=8, ge=1, description="ranks are rounded up to a multiple of this")
    convolutions: bool = Field(default=True, description="1×1 convolutions too, not only dense layers")
    include: tuple[str, ...] = Field(default=("*",), description="globs on the layers' names to convert")
    exclude: tuple[str, ...] | Literal["auto"] = Field(
        default=(),
        description="globs on the layers' names to leave; auto: those that bear half the rank worst (slimcv "
        "sensitivity), a tenth of the weights at most",
    )
    correct: bool = Field(
        default=True,
        description="fit each layer behind a converted one to what it gave before; the first needs no fit",
    )
    calibration_images: int = Field(
        default=128, ge=1, description="pictures for energy and fitting, fewer where memory would not do"
    )

    def undoes(self, gained: Gain, *, recovers: bool) -> str | None:  # noqa: ARG002
        """New weights have neither zeros nor shared values."""
        return "two layers take the place of one, with weights that are made of all of the old ones"

    def draft(self) -> LowRank:
        """Layers are not fitted to what those before them became."""
        return self.model_copy(update={"correct": False})

    def apply(self, variant: Variant, context: Context) -> Variant:
        """The variant with every layer factorised that is worth it."""
        from slimcv import sensitivity, surgery
        from slimcv.models import capture

        model = variant.model
        capture.set_training(model, False)
        exclude = sensitivity.excluded(
            self.exclude, variant, context, treatment=sensitivity.low_rank(), step="low_rank"
        )
        found = surgery.factorisable(
            model, include=self.include, exclude=exclude, convolutions=self.convolutions
        )
        if not found:
            raise NotApplicable("no dense layer or 1×1 convolution is asked for")
        original = capture.copy(model)
        count = surgery.pictures_that_fit(original, variant.input, most=self.calibration_images)
        made = surgery.factorise_layers(
            original,
            model,
            names=[str(node.target) for node, _ in found],
            energy=self.energy,
            rank=self.rank,
            min_gain=self.min_gain,
            round_to=self.round_to,
            correct=self.correct,
            batches=surgery.calibration_batches(context, variant.input, count=count),
            seed=context.seed,
        )
        if not made:
            asked = f"at rank {self.rank}" if self.rank else f"with {self.energy:.0%} of the energy"
            raise NotApplicable(f"none of {len(found)} layers becomes smaller by {self.min_gain:.0%} {asked}")
        details = {
            one.name: {
                "rank": one.rank,
                "energy": round(one.energy, 4),
                "weights": [one.values_before, one.values_after],
            }
            for one in made
        }
        return replace(variant, artifacts={}, details={**variant.details, "low_rank": details})
