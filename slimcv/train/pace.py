"""How long an epoch of the unmodified network would take: the yardstick for training the optimised one."""

from __future__ import annotations

import math
import time

import torch
from torch.nn import functional

from slimcv.models import capture
from slimcv.step import Variant

BATCH = 32
TIMED_STEPS = 2


def plain_seconds_per_epoch(variant: Variant, pictures: int) -> float:
    """Seconds for `pictures` in a plain loop (fp32, eager, AdamW, cross-entropy).

    They are taken from the steps after a first. The data pipeline is left out, which favours the unmodified
    network. `variant` is left as it is.
    """
    model = capture.copy(variant.model)
    capture.set_training(model, True)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-6)
    generator = torch.Generator().manual_seed(0)
    batch = torch.randn(BATCH, *variant.input.shape, generator=generator)
    labels = torch.zeros(BATCH, dtype=torch.int64)
    seconds = []
    for _ in range(1 + TIMED_STEPS):
        begun = time.perf_counter()
        optimizer.zero_grad()
        torch.autograd.backward(functional.cross_entropy(model(batch), labels))
        optimizer.step()
        seconds.append(time.perf_counter() - begun)
    return min(seconds[1:]) * math.ceil(pictures / BATCH)
