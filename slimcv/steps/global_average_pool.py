"""Flatten → dense head becomes global average pooling; the first dense layer's weights are carried over."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from slimcv.errors import NotApplicable
from slimcv.step import Context, Gain, Stage, Step, Variant

if TYPE_CHECKING:
    from slimcv.surgery import Head


class GlobalAveragePool(Step):
    """Afterwards the network takes other resolutions as well (Lin et al. 2014, "Network in Network").

    Carrying over sums the dense layer's weights over the positions: exact for a map that is constant.
    Raises NotApplicable where no dense layer reads a flattened map.
    """

    stage: ClassVar[Stage] = Stage.SURGERY
    enabling: ClassVar[bool] = True

    head: Literal["keep", "collapse"] = Field(
        default="collapse",
        description="keep the dense layers, or collapse them into one, fitted to the logits on pictures",
    )
    calibration_images: int = Field(
        default=256, ge=1, description="training pictures the collapsed head is fitted on"
    )

    def undoes(self, gained: Gain, *, recovers: bool) -> str | None:  # noqa: ARG002
        """New weights have neither zeros nor shared values."""
        return "the head is summed or fitted anew"

    def apply(self, variant: Variant, context: Context) -> Variant:
        """The variant with its map pooled before the head.

        Raises NotApplicable where there is no such head, or `collapse` meets one that branches or cannot be
        made linear.
        """
        from slimcv import surgery
        from slimcv.models import capture

        capture.set_training(variant.model, False)
        shapes = capture.shapes(variant.model, variant.input)
        outputs = _outputs(variant)
        head = surgery.find_head(variant.model, shapes)
        if self.head == "keep":
            surgery.pool_globally(variant.model, head)
        else:
            self._collapse(variant, context, head=head)
        if _outputs(variant) != outputs:
            raise NotApplicable("pooling the map changes the shape of the outputs")
        return replace(variant, artifacts={})

    def _collapse(self, variant: Variant, context: Context, *, head: Head) -> None:
        from slimcv import surgery

        model = variant.model
        batches = surgery.calibration_batches(context, variant.input, count=self.calibration_images)
        features, logits = surgery.observe(model, head.map, batches)
        pooled = surgery.pool_globally(model, head)
        weight, bias = surgery.linearised(model, surgery.chain_to_output(pooled), channels=head.channels)
        weight, bias = surgery.fit_linear(features, logits, prior=weight)
        surgery.collapse(model, pooled, weight=weight, bias=bias)


def _outputs(variant: Variant) -> tuple[int, ...]:
    """The shape of the logits for a batch of two."""
    from slimcv.models import capture

    last = variant.model.graph.output_node().all_input_nodes[0]
    return capture.shapes(variant.model, variant.input)[last.name]
