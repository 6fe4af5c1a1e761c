"""Random changes to training pictures that leave their class as it is, made on whole batches of pixels."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from slimcv.errors import SlimcvError

HORIZONTAL, VERTICAL = 1, 2
FLIPPED_AXES = {HORIZONTAL: (2,), VERTICAL: (1,), HORIZONTAL | VERTICAL: (1, 2)}
"""Which axes of (n, height, width, channels) a choice of flip turns round; choice 0 turns none."""


@dataclass(frozen=True)
class Augmentation:
    """How much a picture may be changed.

    `flip` and `vertical_flip` mirror every other picture. `crop` is the largest share of each side that is
    cut away before the rest is resized back (0.2: sides of 80 to 100 %), `shift` the largest shift as a share
    of each side, with the border mirrored into the gap, `colour` the largest relative change of brightness
    and of contrast. All three lie in 0 … 1, below 1; SlimcvError otherwise.
    """

    flip: bool = True
    vertical_flip: bool = False
    crop: float = 0.0
    shift: float = 0.0
    colour: float = 0.0

    def __post_init__(self) -> None:
        for name in ("crop", "shift", "colour"):
            if not 0 <= getattr(self, name) < 1:
                raise SlimcvError(
                    f"augmentation: {name} is {getattr(self, name)}", "give a share from 0 to below 1"
                )

    @property
    def flips(self) -> tuple[int, ...]:
        """The choices of flip that may occur: those a teacher's outputs are worth keeping for."""
        return tuple(
            choice
            for choice in range(4)
            if (self.flip or not choice & HORIZONTAL) and (self.vertical_flip or not choice & VERTICAL)
        )


def augment(
    batch: Tensor, augmentation: Augmentation, *, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Changed copies of uint8 pixels (n, height, width, channels), and the flip of each, int64 (n,)."""
    if augmentation.crop or augmentation.shift:
        batch = _cropped(batch, augmentation, generator)
    if augmentation.colour:
        batch = _recoloured(batch, augmentation.colour, generator)
    flips = torch.tensor(augmentation.flips)
    choice = flips[torch.randint(len(flips), (len(batch),), generator=generator)]
    return flip(batch, choice), choice


def flip(batch: Tensor, choice: Tensor) -> Tensor:
    """A copy of (n, height, width, channels) in which picture i is mirrored as `choice[i]` says.

    0 leaves it, 1 swaps left and right, 2 top and bottom, 3 both.
    """
    result = batch.clone()
    for value, axes in FLIPPED_AXES.items():
        rows = (choice == value).nonzero()[:, 0]
        if len(rows):
            result[rows] = batch[rows].flip(axes)
    return result


def _cropped(batch: Tensor, augmentation: Augmentation, generator: torch.Generator) -> Tensor:
    """Cut a random box out of each picture, perhaps over its border, and resize it back, antialiased."""
    count, height, width, _ = batch.shape
    margins = [min(round(augmentation.shift * side), side - 1) for side in (height, width)]
    for axis, margin in zip((1, 2), margins, strict=True):
        if margin:
            batch = batch.index_select(axis, _mirrored(batch.shape[axis], margin))
    random = torch.rand(count, 2, 3, generator=generator)
    sides = torch.tensor([height, width])
    boxes = (sides * (1 - augmentation.crop * random[..., 0])).round().clamp(min=1)
    shifts = (random[..., 2] * 2 - 1) * torch.tensor(margins)
    origins = ((sides - boxes) * random[..., 1] + torch.tensor(margins) + shifts).round()
    pictures = batch.permute(0, 3, 1, 2)
    result = torch.empty(count, height, width, batch.shape[3], dtype=batch.dtype)
    for index, ((top, left), (tall, wide)) in enumerate(
        zip(origins.int().tolist(), boxes.int().tolist(), strict=True)
    ):
        box = pictures[index : index + 1, :, top : top + tall, left : left + wide]
        if (tall, wide) != (height, width):
            box = functional.interpolate(box, (height, width), mode="bilinear", antialias=True)
        result[index] = box[0].permute(1, 2, 0)
    return result


def _mirrored(length: int, margin: int) -> Tensor:
    """Positions along an axis that is continued by `margin` at both ends as in a mirror."""
    positions = torch.arange(-margin, length + margin).abs()
    return torch.where(positions >= length, 2 * (length - 1) - positions, positions)


def _recoloured(batch: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """Scale each picture's contrast about its own mean and then its brightness."""
    flat = batch.flatten(1).to(torch.float32)
    contrast, brightness = 1 + strength * (2 * torch.rand(2, len(batch), 1, generator=generator) - 1)
    mean = flat.mean(1, keepdim=True)
    flat.mul_(contrast * brightness).add_(mean * (1 - contrast) * brightness + 0.5)
    return flat.clamp_(0, 255).to(torch.uint8).view(batch.shape)
