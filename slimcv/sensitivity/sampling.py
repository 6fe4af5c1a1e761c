"""On what sensitivity is measured: the network as it is deployed, and two sets of pictures apart."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, fx

from slimcv import surgery
from slimcv.data import synthetic
from slimcv.data.batches import batches, normalise
from slimcv.data.dataset import Split
from slimcv.models import capture
from slimcv.quantization import calibration
from slimcv.step import InputSpec

PICTURES = 32
"""Pictures that outputs are compared on, and as many others that ranges and fits come from."""

SWEEP_BYTES = 2**31
"""Memory that the values of all pictures may take where the walk stands."""

_BATCH = 8
_MEASURED_BATCH = 32
"""Outputs do not depend on the batch, and a layer prepares its weights anew for each."""

log = logging.getLogger("slimcv")


@dataclass(frozen=True)
class Sample:
    """Normalised pictures in batches: those to compare outputs on, with labels (n,), and those to fit on.

    In channels_last, in which convolutions need not rearrange what they read. Noise has no `labels`.
    """

    measured: tuple[Tensor, ...]
    labels: Tensor | None
    fitted: tuple[Tensor, ...]


def as_deployed(model: fx.GraphModule, input: InputSpec) -> fx.GraphModule:
    """A copy in eval mode with its BatchNorms folded, as they are before a network is deployed."""
    copied = capture.deterministic(model)
    capture.set_training(copied, False)
    surgery.fold_norms(copied, input)
    return copied.to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


def sample(
    model: fx.GraphModule, input: InputSpec, *, train: Split | None, images: int = PICTURES, seed: int = 0
) -> Sample:
    """Two disjoint seeded samples, as large as `images`, the data and the memory for `model` allow.

    They are of training pictures or, where `train` is None, of noise with the spectrum of photographs.
    """
    count = surgery.pictures_that_fit(model, input, most=images, sweep_bytes=SWEEP_BYTES)
    if train is None:
        noise = normalise(torch.from_numpy(synthetic.pictures(2 * count, input, seed=seed)), input)
        return Sample(
            _laid_out(torch.split(noise[:count], _MEASURED_BATCH)),
            None,
            _laid_out(torch.split(noise[count:], _BATCH)),
        )
    count = max(1, min(count, len(train) // 2))
    if count < images:
        log.info("outputs are compared on %d pictures", count)
    order = calibration.sample(train, 2 * count, seed)
    pixels = train.pixels(input.height, input.width, input.channels)
    parts = order[:count], order[count:] if len(order) > count else order
    measured, fitted = (
        list(batches(pixels, train.labels, input, batch_size=size, order=part))
        for size, part in zip((_MEASURED_BATCH, _BATCH), parts, strict=True)
    )
    labels = torch.cat([labels for _, labels, _ in measured])
    return Sample(_laid_out([x for x, *_ in measured]), labels, _laid_out([x for x, *_ in fitted]))


def _laid_out(pictures: Sequence[Tensor]) -> tuple[Tensor, ...]:
    return tuple(x.contiguous(memory_format=torch.channels_last) for x in pictures)
