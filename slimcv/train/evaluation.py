"""How good the student is on the tuning split while it trains."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.fx import GraphModule
from torch.nn import functional

from slimcv.data import Split
from slimcv.data.batches import batches
from slimcv.models import capture
from slimcv.step import InputSpec
from slimcv.train.processes.group import ALONE, Processes

BATCH = 32


@dataclass(frozen=True)
class Score:
    """Percentage of right answers and mean cross-entropy with the labels."""

    top1: float
    loss: float

    def better_than(self, other: Score | None) -> bool:
        """More right answers or, with as many, a smaller loss; a loss that is no number is never better."""
        if not math.isfinite(self.loss):
            return False
        return other is None or (self.top1, -self.loss) > (other.top1, -other.loss)


def evaluate(model: GraphModule, split: Split, input: InputSpec, *, processes: Processes = ALONE) -> Score:
    """Score `model`, which is left in eval mode, on a split that is not empty. float32 in eager PyTorch.

    Every one of the `processes` scores its share, no picture twice, and gets the score of the whole.
    """
    capture.set_training(model, False)
    pixels = split.pixels(input.height, input.width, input.channels)
    own = processes.part(np.arange(len(split)))
    right, loss = 0, 0.0
    with torch.no_grad():
        for pictures, labels, _ in batches(pixels, split.labels, input, batch_size=BATCH, order=own):
            logits: Tensor = model(pictures)
            right += int((logits.argmax(dim=1) == labels).sum())
            loss += functional.cross_entropy(logits, labels, reduction="sum").item()
    sums = torch.tensor((right, loss), dtype=torch.float64)
    processes.add_up([sums])
    right, loss = sums.tolist()
    return Score(100.0 * right / len(split), loss / len(split))
