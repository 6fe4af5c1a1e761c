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

BOX_SIZES = 8
"""How many sizes the boxes cut out of one batch have: those of one size are resized in one go."""

COLOURED_AT_ONCE = 32
"""Pictures in float32 take four times the memory: so few of them stay in the processor's cache."""


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
    present = [value for value in FLIPPED_AXES if bool((choice == value).any())]
    versions = torch.cat([batch, *(batch.flip(FLIPPED_AXES[value]) for value in present)])
    # Whole pictures are chosen out of all versions: an assignment to some rows takes three times as long.
    version = torch.zeros_like(choice)
    for number, value in enumerate(present, start=1):
        version[choice == value] = number
    return versions.index_select(0, version * len(batch) + torch.arange(len(batch)))


def _cropped(batch: Tensor, augmentation: Augmentation, generator: torch.Generator) -> Tensor:
    """Cut a random box out of each picture, perhaps over its border, and resize it back, antialiased.

    Every picture's box has a place of its own, and shares its size with an eighth of the batch.
    """
    count, height, width, _ = batch.shape
    margins = [min(round(augmentation.shift * side), side - 1) for side in (height, width)]
    batch = _mirrored(_mirrored(batch, 1, margins[0]), 2, margins[1])
    groups = min(BOX_SIZES, count)
    random = torch.rand(count, 2, 3, generator=generator)
    sides = torch.tensor([height, width])
    sizes = (sides * (1 - augmentation.crop * random[:groups, :, 0])).round().clamp(min=1)
    boxes = sizes[torch.arange(count) % groups]
    shifts = (random[..., 2] * 2 - 1) * torch.tensor(margins)
    origins = ((sides - boxes) * random[..., 1] + torch.tensor(margins) + shifts).round().int().tolist()
    result = torch.empty(count, height, width, batch.shape[3], dtype=batch.dtype)
    for group, (tall, wide) in enumerate(sizes.int().tolist()):
        members = range(group, count, groups)
        cut = torch.stack(
            [
                batch[at, top : top + tall, left : left + wide]
                for at in members
                for top, left in (origins[at],)
            ]
        )
        if (tall, wide) != (height, width):
            planes = cut.permute(0, 3, 1, 2)
            resized = functional.interpolate(planes, (height, width), mode="bilinear", antialias=True)
            cut = resized.permute(0, 2, 3, 1)
        result[group::groups] = cut
    return result


def _mirrored(batch: Tensor, axis: int, margin: int) -> Tensor:
    """Pictures continued along an axis by `margin` at both ends as in a mirror."""
    if not margin:
        return batch
    length = batch.shape[axis]
    before = batch.narrow(axis, 1, margin).flip(axis)
    after = batch.narrow(axis, length - 1 - margin, margin).flip(axis)
    return torch.cat([before, batch, after], dim=axis)


def _recoloured(batch: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """Scale each picture's contrast about its own mean and then its brightness."""
    contrast, brightness = 1 + strength * (2 * torch.rand(2, len(batch), 1, generator=generator) - 1)
    result = torch.empty_like(batch)
    for start in range(0, len(batch), COLOURED_AT_ONCE):
        some = slice(start, start + COLOURED_AT_ONCE)
        flat = batch[some].flatten(1).to(torch.float32)
        mean = flat.mean(1, keepdim=True)
        flat.mul_(contrast[some] * brightness[some])
        flat.add_(mean * (1 - contrast[some]) * brightness[some] + 0.5)
        # By way of int16: straight from float32 to uint8 takes three times as long.
        result[some] = flat.clamp_(0, 255).to(torch.int16).to(torch.uint8).view(batch[some].shape)
    return result
