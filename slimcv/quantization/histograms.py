"""Narrower ranges of maps, from the histogram of their values: clipping a few buys the rest finer steps.

`histogram` is the range of least squared error that torchao's observer searches for, `percentile` leaves out
the rarest values (Wu et al. 2020, "Integer Quantization for Deep Learning Inference", section 4.3).
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, fx, nn

from slimcv.models import capture
from slimcv.quantization.calibration import observers
from slimcv.quantization.compressor import quiet

Ranges = Literal["extremes", "histogram", "percentile"]

Scales = dict[str, tuple[float, int]]
"""Scale and zero point by the name of the node whose output is rounded."""

PERCENTILE = 0.9999
"""The share of the values that the range holds, as the paper has it."""

BATCHES = 4
"""Batches that a histogram is made of: counting costs more than the network itself."""


class Watched(nn.Module):
    """An observer of a map, and beside it the histogram of the first values it sees."""

    def __init__(self, observer: Any) -> None:
        super().__init__()
        with quiet():
            from torchao.quantization.pt2e import HistogramObserver

            self.histogram: Any = HistogramObserver(
                dtype=observer.dtype,
                qscheme=observer.qscheme,
                quant_min=observer.quant_min,
                quant_max=observer.quant_max,
            )
        self.observer = observer
        self._batches = 0

    def forward(self, x: Tensor) -> Tensor:
        """What the observer gives for x."""
        if self._batches < BATCHES:
            self.histogram(x.detach())
            self._batches += 1
        seen: Tensor = self.observer(x)
        return seen


def watch(prepared: fx.GraphModule) -> dict[str, Watched]:
    """Put a histogram beside every observer of a map; those by the name of the node that they look at."""
    known: dict[int, Watched] = {}
    found = {}
    activations = {id(observer) for observer in observers(prepared, torch.uint8)}
    for node in prepared.graph.nodes:
        if node.op != "call_module":
            continue
        observer = prepared.get_submodule(str(node.target))
        if id(observer) in activations:
            found[node.args[0].name] = known.setdefault(id(observer), Watched(observer))
            prepared.set_submodule(str(node.target), found[node.args[0].name])
    return found


def unwatch(prepared: fx.GraphModule, watched: dict[str, Watched]) -> dict[Ranges, Scales]:
    """Put the observers back, as they are without histograms; the scales of both ways of narrowing."""
    for node in prepared.graph.nodes:
        if node.op == "call_module" and isinstance(prepared.get_submodule(str(node.target)), Watched):
            prepared.set_submodule(str(node.target), watched[node.args[0].name].observer)
    searched, cut = {}, {}
    for name, one in watched.items():
        searched[name] = _scale(one.histogram)
        cut[name] = _scale(one.observer, within=_percentile(one.histogram))
    return {"histogram": searched, "percentile": cut}


def rescaled(quantized: fx.GraphModule, scales: Scales) -> fx.GraphModule:
    """A copy of an INT8 graph that rounds its maps at these scales."""
    model = capture.copy(quantized)
    for node in list(model.graph.nodes):
        if ".quantize_per_tensor" in f".{node.target}" and node.args[0].name in scales:
            chosen = scales[node.args[0].name]
            for each in (node, *node.users):
                each.args = (each.args[0], *chosen, *each.args[3:])
    model.recompile()
    return model


def _percentile(histogram: Any) -> tuple[Tensor, Tensor]:
    """The range without the rarest values at either end, as wide as it is where an end has none to lose."""
    counts = histogram.histogram.double()
    low, high = histogram.min_val, histogram.max_val
    share = counts.cumsum(0) / counts.sum().clamp(min=1)
    width = (high - low) / len(counts)
    below = int((share <= 1 - PERCENTILE).sum())
    above = int((share < PERCENTILE).sum()) + 1
    return low + below * width, torch.minimum(low + above * width, high)


def _scale(observer: Any, *, within: tuple[Tensor, Tensor] | None = None) -> tuple[float, int]:
    """What an observer's range comes to, or a given one's; the observer keeps its own."""
    kept = observer.min_val, observer.max_val
    if within is not None:
        observer.min_val, observer.max_val = (
            bound.reshape(was.shape) for bound, was in zip(within, kept, strict=True)
        )
    scale, zero = observer.calculate_qparams()
    observer.min_val, observer.max_val = kept
    return float(scale), int(zero)
