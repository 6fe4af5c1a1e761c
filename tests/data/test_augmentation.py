"""Pictures are changed as much as allowed and no more, and every flip is told."""

import pytest
import torch

from slimcv.data.augmentation import Augmentation, augment, flip
from slimcv.errors import SlimcvError


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def pictures():
    return torch.randint(0, 256, (64, 9, 7, 3), dtype=torch.uint8, generator=generator())


def test_a_flip_mirrors_each_picture_as_chosen(pictures):
    found = flip(pictures[:4], torch.tensor([0, 1, 2, 3]))
    assert torch.equal(found[0], pictures[0])
    assert torch.equal(found[1], pictures[1].flip(1))
    assert torch.equal(found[2], pictures[2].flip(0))
    assert torch.equal(found[3], pictures[3].flip(0, 1))


@pytest.mark.parametrize(
    ("augmentation", "flips"),
    [
        (Augmentation(flip=False), (0,)),
        (Augmentation(), (0, 1)),
        (Augmentation(flip=False, vertical_flip=True), (0, 2)),
        (Augmentation(vertical_flip=True), (0, 1, 2, 3)),
    ],
)
def test_the_flips_told_are_those_made_and_those_announced(pictures, augmentation, flips):
    before = pictures.clone()
    found, choice = augment(pictures, augmentation, generator=generator())
    assert augmentation.flips == flips
    assert set(choice.tolist()) == set(flips)
    assert torch.equal(found, flip(pictures, choice))
    assert torch.equal(pictures, before)


def test_the_generator_alone_decides(pictures):
    strong = Augmentation(vertical_flip=True, crop=0.3, shift=0.2, colour=0.3)
    first, again, other = (augment(pictures, strong, generator=generator(seed))[0] for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", ["crop", "shift", "colour"])
def test_every_change_keeps_shape_and_type_and_changes_something(name, channels):
    pictures = torch.randint(0, 256, (16, 12, 10, channels), dtype=torch.uint8, generator=generator())
    found, _ = augment(pictures, Augmentation(flip=False, **{name: 0.4}), generator=generator())
    assert found.shape == pictures.shape
    assert found.dtype == torch.uint8
    assert not torch.equal(found, pictures)


@pytest.mark.parametrize("name", ["crop", "shift"])
def test_an_even_picture_stays_even_when_cropped_or_shifted(name):
    pictures = torch.full((8, 11, 9, 3), 77, dtype=torch.uint8)
    found, _ = augment(pictures, Augmentation(**{name: 0.5}), generator=generator())
    assert torch.equal(found, pictures)


def test_a_shift_moves_by_no_more_than_its_share():
    ramp = torch.arange(0, 200, 10, dtype=torch.uint8)[None, None, :, None].expand(32, 4, 20, 1).contiguous()
    found, _ = augment(ramp, Augmentation(flip=False, shift=0.15), generator=generator())
    moves = (found[:, 0, 10, 0].int() - 100) // 10
    assert moves.abs().max() == 3
    assert len(moves.unique()) == 7
    assert torch.equal(
        (found[:, :, 3:17] - found[:, :, 10:11]).int() % 256,
        (ramp - ramp[:, :, 10:11])[:, :, 3:17].int() % 256,
    )


def test_a_crop_keeps_a_box_of_the_picture():
    ramp = (
        torch.arange(0, 200, 2, dtype=torch.uint8)[None, None, :, None].expand(32, 100, 100, 1).contiguous()
    )
    found, _ = augment(ramp, Augmentation(flip=False, crop=0.2), generator=generator())
    spans = found[:, 50, -1, 0].int() - found[:, 50, 0, 0].int()
    assert spans.min() >= 0.8 * 198 - 4
    assert spans.max() <= 198
    assert spans.min() < 180


def test_colour_stays_within_its_strength(pictures):
    even = torch.full((64, 4, 4, 3), 100, dtype=torch.uint8)
    found, _ = augment(even, Augmentation(colour=0.2), generator=generator())
    levels = found[:, 0, 0, 0]
    assert levels.min() >= 80
    assert levels.max() <= 120
    assert levels.max() - levels.min() > 20


@pytest.mark.parametrize("share", [-0.1, 1.0])
def test_a_share_outside_its_range_is_refused(share):
    with pytest.raises(SlimcvError, match="crop"):
        Augmentation(crop=share)
