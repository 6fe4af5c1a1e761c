"""Whether bfloat16 trains this network faster on this machine."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor
from torch.fx import GraphModule

from slimcv.measure import environment
from slimcv.models import capture
from slimcv.train import objective
from slimcv.train.feed import Batch
from slimcv.train.settings import FinetuneSettings

Precision = Literal["fp32", "bf16"]
TIMED_STEPS = 3
MOST_SECONDS = 10.0
"""After so much time no further step is timed."""

log = logging.getLogger("slimcv")


def choose(model: GraphModule, batch: Batch, settings: FinetuneSettings) -> Precision:
    """What the settings say or, for `auto`, the faster of both as timed on copies of `model`.

    Without instructions for it bfloat16 is emulated, several times slower than float32, and not even timed.
    """
    if settings.precision != "auto":
        return settings.precision
    if not environment.has_bf16_instructions():
        return "fp32"
    fp32 = step_seconds(capture.copy(model), batch, settings, precision="fp32")
    bf16 = step_seconds(capture.copy(model), batch, settings, precision="bf16")
    log.info("a training step takes %.0f ms in fp32, %.0f ms in bf16", 1000 * fp32, 1000 * bf16)
    return "bf16" if bf16 < fp32 else "fp32"


def step_seconds(
    model: GraphModule,
    batch: Batch,
    settings: FinetuneSettings,
    *,
    precision: Precision,
    forward: Callable[[Tensor], Tensor] | None = None,
) -> float:
    """The fastest of a few gradients of `model`, after one that does not count. Changes its BatchNorms.

    `forward` computes what the model does, compiled for instance; by default it is the model itself.
    """
    capture.set_training(model, True)
    call = model if forward is None else forward
    fastest, first = float("inf"), time.perf_counter()
    for number in range(1 + TIMED_STEPS):
        begun = time.perf_counter()
        if number > 1 and begun - first > MOST_SECONDS:
            break
        with autocast(precision):
            logits = call(batch.pictures)
        torch.autograd.backward(objective.loss(logits, batch.labels, batch.taught, settings))
        model.zero_grad(set_to_none=True)
        if number:
            fastest = min(fastest, time.perf_counter() - begun)
    return fastest


def autocast(precision: Precision) -> torch.autocast:
    """The context in which a forward computation has that precision."""
    return torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == "bf16")
