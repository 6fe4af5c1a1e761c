"""What an INT8 graph answers beside the network in floats, on the pictures that a gate will be judged on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
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

    from slimcv.step import Context, InputSpec, Variant

SAMPLE = 32
"""Pictures that are asked first, which are often enough."""


@dataclass(frozen=True)
class Figures:
    """`error` is the norm of the outputs' change over that of the outputs; `top1` a percentage.

    `excess` are points of top-1 lost beyond what the gate leaves, 0 where it is met or accuracy says nothing.
    `pictures` is how many were asked.
    """

    error: float
    top1: float
    excess: float
    met: bool
    pictures: int

    @property
    def rank(self) -> tuple[float, float]:
        """Of two graphs the better one has the smaller."""
        return self.excess, self.error


class Judge:
    """Judges graphs by a gate's accuracy where there are pictures enough to tell, else by their outputs.

    The pictures are `count` of the tuning split. They tell where one of them weighs less than what the gate
    leaves; otherwise the outputs must not move by more than `max_error`, as a share of their norm. Where on
    the first `SAMPLE` they move by less than half of that and no right answer is lost, that is enough.
    """

    def __init__(self, variant: Variant, context: Context, *, count: int, max_error: float) -> None:
        data = context.data
        tuning = data.tuning if data is not None and len(data.tuning) else None
        self._split = tuning or calibration.pictures_for(variant, context)
        self._gate = context.gate if tuning is not None else None
        self._variant, self._teacher, self._max_error = variant, context.teacher, max_error
        self._chosen = calibration.sample(self._split, count, context.seed)
        self._labels = torch.from_numpy(self._split.labels[self._chosen])
        self._first = self._outputs(variant.model, self._chosen[:SAMPLE])

    def figures(self, graph: fx.GraphModule) -> Figures:
        """Of a graph in lifted form; run eagerly it computes what exact INT8 kernels compute."""
        found = self._outputs(graph, self._chosen[:SAMPLE])
        labels = self._labels[:SAMPLE]
        error = relative_error(found, self._first)
        lost = (self._first.argmax(1) == labels) & (found.argmax(1) != labels)
        if error <= self._max_error / 2 and not lost.any():
            return Figures(error, top1(found, labels), 0.0, met=True, pictures=len(found))
        found = torch.cat([found, self._outputs(graph, self._chosen[SAMPLE:])])
        error = relative_error(found, self._expected)
        right = top1(found, self._labels)
        if self._lowest is None:
            return Figures(error, right, 0.0, met=error <= self._max_error, pictures=len(found))
        excess = max(0.0, round(self._lowest - right, 9))
        return Figures(error, right, excess, met=not excess, pictures=len(found))

    def error(self, graph: fx.GraphModule) -> float:
        """How far the outputs move on `SAMPLE` of the pictures."""
        return relative_error(self._outputs(graph, self._chosen[:SAMPLE]), self._first)

    @cached_property
    def _expected(self) -> Tensor:
        rest = self._outputs(self._variant.model, self._chosen[SAMPLE:])
        return torch.cat([self._first, rest])

    @cached_property
    def _lowest(self) -> float | None:
        """The lowest top-1 that keeps the gate, None where these pictures cannot tell."""
        before, gate = top1(self._expected, self._labels), self._gate
        lowest = []
        if gate is not None and gate.max_step_drop is not None:
            lowest.append(before - gate.max_step_drop)
        if gate is not None and gate.max_drop is not None:
            said = self._outputs(self._teacher.model, self._chosen, input=self._teacher.input)
            lowest.append(top1(said, self._labels) - gate.max_drop)
        if not lowest or before - max(lowest) < 100 / len(self._chosen):
            return None
        return max(lowest)

    def _outputs(
        self, model: fx.GraphModule, chosen: NDArray[np.intp], *, input: InputSpec | None = None
    ) -> Tensor:
        capture.set_training(model, False)
        with torch.no_grad():
            found = [model(x).float() for x in self._batches(input or self._variant.input, chosen)]
        return torch.cat(found) if found else torch.empty(0, *self._first.shape[1:])

    def _batches(self, input: InputSpec, chosen: NDArray[np.intp]) -> Iterator[Tensor]:
        pixels = self._split.pixels(input.height, input.width, input.channels)
        for x, _, _ in batches(pixels, self._split.labels, input, batch_size=SAMPLE, order=chosen):
            yield x
