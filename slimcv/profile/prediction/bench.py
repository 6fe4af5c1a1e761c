"""Pieces timed on this machine, each shape once, in the runtime that is asked about."""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter

import torch
from torch import nn

from slimcv.errors import SlimcvError
from slimcv.profile.counters.calls import undisturbed
from slimcv.profile.named import Named
from slimcv.profile.prediction import packed
from slimcv.profile.prediction.pieces import Piece, random_batch
from slimcv.profile.timing import threads_set
from slimcv.report import figures

SECONDS = 0.04
"""What the calls of one piece may take together, if three of them take no longer."""

MOST_WEIGHTS = 8_000_000
"""A layer with more is not made anew: its copies would take more memory than all else here."""

TRAINED_BATCH = 4
"""Pictures at once when a piece is trained: the time of a picture, without the memory of a usual batch."""

TIMED = ("eager", "openvino", "onnxruntime", "inductor", "aotinductor")
"""Where a piece can be timed."""

_COMPILED = ("inductor", "aotinductor")
"""Both call the same layers of oneDNN."""

_TICK_MS = 0.0005
"""Counters tell whole microseconds: 0 is less than half of one."""

_SMALLEST = Piece(8, 8, (8,))

_WORK = ("Conv", "Gemm", "MatMul", "FullyConnected")
"""Parts of the names of what a runtime may make of a piece; the rest is change of layout and precision."""


class Bench:
    """Milliseconds of pieces; after `deadline` (a `perf_counter` reading) only of those known by then."""

    def __init__(self, *, threads: int, deadline: float) -> None:
        self.deadline = deadline
        self._threads = threads
        self._known: dict[tuple[Piece, str, bool], float | None] = {}
        self._refused: dict[tuple[Piece, str, bool], str] = {}

    def warm(self) -> None:
        """Load the runtimes, so that it is not the first piece that pays for it."""
        for runtime in ("openvino", "onnxruntime"):
            self._counted(_SMALLEST, runtime, int8=False)

    def ms(self, piece: Piece, runtime: str, *, int8: bool = False) -> float | None:
        """One picture through the piece; None for what `untimed` says."""
        key = _key(piece, runtime, int8=int8)
        if key not in self._known:
            if perf_counter() > self.deadline or piece.weights > MOST_WEIGHTS:
                return None
            self._known[key] = self._timed(piece, key[1], int8=int8)
        return self._known[key]

    def untimed(self, piece: Piece, runtime: str, *, int8: bool = False) -> str:
        """Why `ms` has no time for the piece."""
        if piece.weights > MOST_WEIGHTS:
            return f"a layer of {figures.count(piece.weights)} weights is too large to be timed alone"
        return self._refused.get(_key(piece, runtime, int8=int8), "no time left to time it")

    def training_ms(self, piece: Piece) -> float | None:
        """A picture's part of a training step, forwards and backwards, as slimcv trains (channels_last)."""
        key = (piece, "training", False)
        if key not in self._known:
            if perf_counter() > self.deadline or piece.weights > MOST_WEIGHTS:
                return None
            self._known[key] = self._trained(piece)
        return self._known[key]

    def _timed(self, piece: Piece, runtime: str, *, int8: bool) -> float | None:
        if runtime == "eager":
            module, batch = piece.module().eval(), random_batch(piece)
            return self._milliseconds(lambda: module(batch))
        if runtime == "inductor":
            return self._milliseconds(packed.call_of(piece))
        return self._counted(piece, runtime, int8=int8)

    def _milliseconds(self, call: Callable[[], object]) -> float:
        with threads_set(self._threads), torch.inference_mode():
            return _milliseconds(call)

    def _counted(self, piece: Piece, runtime: str, *, int8: bool) -> float | None:
        if runtime == "openvino":
            from slimcv.profile.counters.openvino import run_onnx
        else:
            from slimcv.profile.counters.onnxruntime import run_onnx
        model = Named(piece.onnx(int8=int8), ("piece",), {"at0_0out0": ()}, {})
        try:
            ran = run_onnx(model, random_batch(piece).numpy(), threads=self._threads, seconds=SECONDS)
        except SlimcvError as error:
            self._refused[piece, runtime, int8] = f"a layer could not be timed alone: {error.message}"
            return None
        found = [node.ms for node in ran.nodes if any(word in node.kind for word in _WORK)]
        if not found:
            self._refused[piece, runtime, int8] = f"{runtime} does not tell what a layer takes alone"
            return None
        return max(sum(found), _TICK_MS)

    def _trained(self, piece: Piece) -> float:
        module: nn.Module = piece.module().train()
        batch = random_batch(piece, batch=TRAINED_BATCH)
        if not piece.is_linear:
            module = module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
            batch = batch.contiguous(memory_format=torch.channels_last)
        batch.requires_grad_()

        def step() -> None:
            module(batch).sum().backward()
            module.zero_grad(set_to_none=True)
            batch.grad = None

        with threads_set(self._threads):
            return _milliseconds(step) / TRAINED_BATCH


def _key(piece: Piece, runtime: str, *, int8: bool) -> tuple[Piece, str, bool]:
    return piece, "inductor" if runtime in _COMPILED else runtime, int8


def _milliseconds(call: Callable[[], object]) -> float:
    call()
    times: list[float] = []
    begun = perf_counter()
    while len(times) < 3 or (len(times) < 50 and perf_counter() - begun < SECONDS):
        started = perf_counter()
        call()
        times.append(1000 * (perf_counter() - started))
    return undisturbed(times)
