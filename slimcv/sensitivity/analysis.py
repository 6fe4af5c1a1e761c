"""Layer by layer: what each treatment loses in outputs and top-1, and gains in bytes and milliseconds."""

from __future__ import annotations

import copy
import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import fx

from slimcv.errors import NotApplicable
from slimcv.measure import environment, macs
from slimcv.models import capture
from slimcv.profile import kinds
from slimcv.quantization import FULL, REDUCED, calibration
from slimcv.results import Record
from slimcv.sensitivity.cost import in_turns, packed_bytes
from slimcv.sensitivity.effects import top1
from slimcv.sensitivity.sampling import Sample, as_deployed, sample
from slimcv.sensitivity.treatments import Changed, Treatment, measured, treatments
from slimcv.sensitivity.walk import Layer, Walk

if TYPE_CHECKING:
    from slimcv.run import Run
    from slimcv.step import Context

ORIGINAL = "original"
"""Step of the first record, whose details hold the network's own figures."""

_OUTPUTS_FAIL = "the outputs are no numbers any more"

log = logging.getLogger("slimcv")


@dataclass(frozen=True)
class Cell:
    """A layer treated: the loss in outputs and top-1 (points), and what it saves in bytes and milliseconds.

    `reason` says why nothing is measured, or why the outputs are no numbers; `ms_reason` why there are no
    milliseconds, or why they are 0. `sqnr_db` is None with an `error` of 0 where the outputs stayed the same.
    """

    sqnr_db: float | None = None
    error: float | None = None
    top1_drop: float | None = None
    bytes: int | None = None
    bytes_saved: int | None = None
    ms: float | None = None
    ms_saved: float | None = None
    reason: str | None = None
    ms_reason: str | None = None


def analyse(context: Context, run: Run, *, images: int) -> Iterator[Record]:
    """A record with the figures of the network, then one for each layer as it is measured.

    BatchNorms are folded first, as they are before a network is deployed. Outputs are compared on `images`
    training pictures, fewer where they are few or memory would not do; as many others set ranges and fits. A
    layer's record has its row of the table in `details`. Records of an interrupted analysis are yielded again
    before new work starts. Raises NotApplicable where the network is INT8 already or has no layer.
    """
    variant = context.teacher
    train = calibration.pictures_for(variant, context)
    model = as_deployed(variant.model, variant.input)
    pictures = sample(model, variant.input, train=train, images=images, seed=context.seed)
    chosen = treatments(levels=levels())
    analysis = _Analysis(model, context, pictures)
    if not analysis.walk.layers:
        raise NotApplicable("the network has no convolution and no linear layer in floats")
    record = run.replay()
    if record is None:
        record = run.commit(analysis.original())
    yield record
    count = len(analysis.walk.layers)
    for number, (node, layer) in enumerate(analysis.walk.layers, start=1):
        record = run.replay()
        if record is None:
            log.info("layer %d of %d: %s", number, count, node.target, extra={"live": True})
            begun = time.perf_counter()
            row = analysis.row(node, layer, chosen)
            seconds = time.perf_counter() - begun
            record = run.commit(Record(number, -1, str(node.target), "measured", "", seconds, details=row))
        yield record


def levels() -> int:
    """The largest integer a weight may be, which depends on what this CPU's 8-bit sums hold."""
    return (REDUCED if environment.saturates("host") else FULL)[1]


class _Analysis:
    """One network on its pictures: the walk through it, and what it costs as it is."""

    def __init__(self, model: fx.GraphModule, context: Context, pictures: Sample) -> None:
        self._model, self._context = model, context
        self._sample = pictures
        self.walk = Walk(model, measured=self._sample.measured, fitted=self._sample.fitted)
        input = context.teacher.input
        self._macs = {macs.layer_name(node): cost for node, cost in macs.by_node(model, input).items()}
        self._shapes = capture.shapes(model, input)

    def original(self) -> Record:
        """The record of the network as it is."""
        begun = time.perf_counter()
        labels = self._sample.labels
        figures = {
            "top1": None if labels is None else top1(self.walk.expected, labels),
            "measured_images": sum(map(len, self._sample.measured)),
            "fitted_images": sum(map(len, self._sample.fitted)),
            "environment": environment.describe().as_json(),
        }
        return Record(0, -1, ORIGINAL, "measured", "", time.perf_counter() - begun, details=figures)

    @torch.no_grad()
    def row(self, node: fx.Node, layer: Layer, chosen: Sequence[Treatment]) -> dict[str, Any]:
        """The layer with a cell for each treatment, as plain data."""
        name = str(node.target)
        before = packed_bytes(parameter.detach() for parameter in layer.parameters())
        cells = {one.key: self._cell(node, layer, one, before=before) for one in chosen}
        timed = (cell.ms + (cell.ms_saved or 0.0) for cell in cells.values() if cell.ms is not None)
        return {
            "name": name,
            "kind": kinds.kind_of(node, self._shapes),
            "weights": layer.weight.numel(),
            "macs": self._macs.get(name, 0),
            "bytes": before,
            "ms": next(timed, None),
            "treatments": {key: asdict(cell) for key, cell in cells.items()},
        }

    def _cell(self, node: fx.Node, layer: Layer, treatment: Treatment, *, before: int) -> Cell:
        try:
            changed, found = measured(
                self.walk, node, layer, treatment, labels=self._sample.labels, seed=self._context.seed
            )
        except NotApplicable as error:
            return Cell(reason=error.message)
        stored = packed_bytes(changed.stored)
        cell = Cell(
            sqnr_db=found.sqnr_db,
            error=found.error,
            top1_drop=found.top1_drop,
            bytes=stored,
            bytes_saved=before - stored,
            reason=_OUTPUTS_FAIL if found.error is None else None,
        )
        if treatment.same_time is not None:
            return replace(cell, ms_saved=0.0, ms_reason=treatment.same_time)
        try:
            before_ms, after_ms = self._timed(node, layer, changed)
        except NotApplicable as error:
            return replace(cell, ms_reason=error.message)
        return replace(cell, ms=after_ms, ms_saved=before_ms - after_ms)

    def _timed(self, node: fx.Node, layer: Layer, changed: Changed) -> tuple[float, float]:
        """Both layers on what the layer reads of one picture, in the memory format that suits the CPU."""
        x = self.walk.given(node)[0][:1].clone()
        original = copy.deepcopy(layer)
        if x.ndim == 4:
            x = x.contiguous(memory_format=torch.channels_last)
            for module in (original, changed.module):
                module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        assert changed.timed is not None
        return in_turns(lambda: original(x), changed.timed(x), threads=self._context.threads)
