"""What an INT8 graph answers beside the network in floats, on the pictures that a gate will be judged on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, fx

from slimcv.data.batches import batches
from slimcv.models import capture
from slimcv.quantization import calibration
from slimcv.sensitivity.effects import relative_error, top1

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from slimcv.data import Split
    from slimcv.gate import Gate
    from slimcv.step import Context, InputSpec, Variant

SAMPLE = 32
"""Pictures that outputs are compared on."""

_BATCH = 32


@dataclass(frozen=True)
class Figures:
    """`error` is the norm of the outputs' change over that of the outputs; `top1` a percentage.

    `excess` are points of top-1 lost beyond what the gate leaves, 0 where it is met or accuracy says nothing.
    """

    error: float
    top1: float | None
    excess: float
    met: bool

    @property
    def rank(self) -> tuple[float, float]:
        """Of two graphs the better one has the smaller."""
        return self.excess, self.error


class Judge:
    """Judges graphs by a gate's accuracy where there are pictures enough to tell, else by their outputs.

    The pictures are `count` of the tuning split. They tell where one of them weighs less than what the gate
    leaves; otherwise the outputs must not move by more than `max_error`, as a share of their norm.
    """

    def __init__(self, variant: Variant, context: Context, *, count: int, max_error: float) -> None:
        data = context.data
        split = data.tuning if data is not None and len(data.tuning) else None
        self._split = split or calibration.pictures_for(variant, context)
        self._chosen = calibration.sample(self._split, count, context.seed)
        self._input, self._max_error = variant.input, max_error
        self._labels = torch.from_numpy(self._split.labels[self._chosen])
        self._expected = self._outputs(variant.model, self._chosen)
        self._lowest = self._bound(context, context.gate) if split is not None and context.gate else None

    @property
    def pictures(self) -> int:
        """How many there are."""
        return len(self._chosen)

    def figures(self, graph: fx.GraphModule) -> Figures:
        """Of a graph in lifted form; run eagerly it computes what exact INT8 kernels compute."""
        found = self._outputs(graph, self._chosen)
        error = relative_error(found, self._expected)
        right = top1(found, self._labels)
        if self._lowest is None:
            return Figures(error, right, 0.0, met=error <= self._max_error)
        excess = max(0.0, self._lowest - right)
        return Figures(error, right, excess, met=not excess)

    def error(self, graph: fx.GraphModule) -> float:
        """How far the outputs move on `SAMPLE` of the pictures."""
        return relative_error(self._outputs(graph, self._chosen[:SAMPLE]), self._expected[:SAMPLE])

    def sample(self) -> Tensor:
        """`SAMPLE` of the pictures, normalised (n, channels, height, width)."""
        return torch.cat([x for x, _, _ in _batches(self._split, self._input, self._chosen[:SAMPLE])])

    def _outputs(self, model: fx.GraphModule, chosen: NDArray[np.intp]) -> Tensor:
        capture.set_training(model, False)
        with torch.no_grad():
            return torch.cat([model(x).float() for x, _, _ in _batches(self._split, self._input, chosen)])

    def _bound(self, context: Context, gate: Gate) -> float | None:
        """The lowest top-1 that keeps the gate, None where these pictures cannot tell."""
        before = top1(self._expected, self._labels)
        lowest = []
        if gate.max_step_drop is not None:
            lowest.append(before - gate.max_step_drop)
        if gate.max_drop is not None:
            teacher = context.teacher
            capture.set_training(teacher.model, False)
            with torch.no_grad():
                asked = _batches(self._split, teacher.input, self._chosen)
                said = torch.cat([teacher.model(x).float() for x, _, _ in asked])
            lowest.append(top1(said, self._labels) - gate.max_drop)
        if not lowest or before - max(lowest) < 100 / len(self._chosen):
            return None
        return max(lowest)


def _batches(split: Split, input: InputSpec, chosen: NDArray[np.intp]):  # type: ignore[no-untyped-def]
    pixels = split.pixels(input.height, input.width, input.channels)
    return batches(pixels, split.labels, input, batch_size=_BATCH, order=chosen)
