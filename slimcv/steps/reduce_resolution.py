"""A smaller input picture: the same network at a lower resolution."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from slimcv.errors import NotApplicable
from slimcv.step import Context, InputSpec, Stage, Step, Variant

if TYPE_CHECKING:
    from torch.fx import GraphModule

    from slimcv.surgery.graph import Shapes

_UNIT, _SMALL_UNIT, _SMALL = 8, 4, 64
"""Below 64 pixels a step of 8 would be more than an eighth of the side."""


class ReduceResolution(Step):
    """Latency falls with the number of pixels; fine-tuning at the new size should follow.

    Raises NotApplicable where the picture would not become smaller, the network does not run at the new size,
    or a map would shrink below `min_map`.
    """

    stage: ClassVar[Stage] = Stage.SURGERY

    size: int | None = Field(
        default=None, ge=8, description="pixels along the picture's shorter side; wins over scale"
    )
    scale: float | None = Field(default=0.5, gt=0, lt=1, description="new side over the old one")
    multiple_of: int | None = Field(
        default=None,
        ge=1,
        description="with scale, the sides are multiples of this; null: 8, or 4 below 64 pixels",
    )
    min_map: int = Field(
        default=2, ge=1, description="smallest side a feature map may shrink to from a larger one"
    )

    def apply(self, variant: Variant, context: Context) -> Variant:  # noqa: ARG002
        """The same network, fed smaller pictures."""
        from slimcv.models import capture

        old, new = variant.input, self.smaller(variant.input)
        capture.set_training(variant.model, False)
        before = capture.shapes(variant.model, old)
        self.check_maps(before, _shapes_at(variant.model, new), input=new)
        return replace(variant, input=new, artifacts={})

    def smaller(self, input: InputSpec) -> InputSpec:
        """The new size of pictures. Raises NotApplicable where it is not smaller."""
        sides = (input.height, input.width)
        if self.size is not None:
            height, width = (round(side * self.size / min(sides)) for side in sides)
        elif self.scale is not None:
            unit = self.multiple_of or (_UNIT if min(sides) >= _SMALL else _SMALL_UNIT)
            height, width = (max(unit, round(side * self.scale / unit) * unit) for side in sides)
        else:
            raise NotApplicable("neither a size nor a scale is given", "set size or scale")
        if height >= input.height or width >= input.width:
            raise NotApplicable(
                f"{height}x{width} is not smaller than the input {input.height}x{input.width}"
            )
        return replace(input, height=height, width=width)

    def check_maps(self, before: Shapes, after: Shapes, *, input: InputSpec) -> None:
        """Raises NotApplicable where a map shrinks too far; shapes are by node, now and at `input`."""
        for name, shape in before.items():
            if len(shape) != 4 or min(shape[2:]) < self.min_map or name not in after:
                continue
            if min(after[name][2:]) < self.min_map:
                height, width = after[name][2:]
                raise NotApplicable(f"at {input} the map of '{name}' would shrink to {height}x{width}")


def _shapes_at(model: GraphModule, input: InputSpec) -> Shapes:
    """Shapes at the new size; the network is run first, since its failing there is no fault to be logged."""
    import torch

    from slimcv.models import capture

    try:
        with torch.no_grad():
            model(torch.zeros(1, *input.shape))
        return capture.shapes(model, input)
    except capture.FAULTS as error:
        raise NotApplicable(
            f"the network does not run at {input}",
            "where a flatten fixes the size, put global_average_pool before reduce_resolution",
        ) from error
