"""How long each node of the graph takes, and how much memory its tensors hold, in eager PyTorch."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import median
from time import perf_counter
from typing import Any

import torch
from torch import Tensor, fx

from slimcv.measure import memory

_WARM_UPS = 2
_LEAST_SECONDS = 0.3
"""A fast network is repeated for so long, because a median of few short calls is mostly noise."""
_MOST_REPEATS = 100


@dataclass(frozen=True)
class Timed:
    """Medians over the repeats, in milliseconds; shapes by node name, with the batch dimension.

    `between_layers` is the fraction of a call spent outside its layers. It is the median over pairs of runs,
    not made from the medians: a busy machine interrupts a long call more often than a short layer. `views`
    are the nodes that give nothing but memory they were given.
    """

    node_ms: dict[str, float]
    whole_ms: float
    between_layers: float
    repeats: int
    shapes: dict[str, tuple[int, ...]]
    views: frozenset[str]
    peak_activation_bytes: int
    peak_node: str
    call_rss_bytes: int | None


class _Stopwatch(fx.Interpreter):
    """Runs the graph node by node and keeps the time of each call, argument look-up left out."""

    def __init__(self, model: fx.GraphModule) -> None:
        super().__init__(model)
        self.milliseconds: dict[str, float] = {}
        self._node = ""

    def run_node(self, n: fx.Node) -> Any:
        self._node = n.name
        return super().run_node(n)

    def call_function(self, target: Any, args: Any, kwargs: Any) -> Any:
        start = perf_counter()
        value = super().call_function(target, args, kwargs)
        self.milliseconds[self._node] = 1000 * (perf_counter() - start)
        return value

    def call_method(self, target: Any, args: Any, kwargs: Any) -> Any:
        start = perf_counter()
        value = super().call_method(target, args, kwargs)
        self.milliseconds[self._node] = 1000 * (perf_counter() - start)
        return value

    def call_module(self, target: Any, args: Any, kwargs: Any) -> Any:
        start = perf_counter()
        value = super().call_module(target, args, kwargs)
        self.milliseconds[self._node] = 1000 * (perf_counter() - start)
        return value


class _Ledger(fx.Interpreter):
    """Runs the graph once and adds up what is alive after each node; weights are not activations."""

    def __init__(self, model: fx.GraphModule) -> None:
        super().__init__(model)
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.views: set[str] = set()
        self.peak_bytes = 0
        self.peak_node = ""

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        if isinstance(value, Tensor):
            self.shapes[n.name] = tuple(value.shape)
        given = [_storages(self.env[source]) for source in n.all_input_nodes]
        if _storages(value).keys() <= set().union(*given):
            self.views.add(n.name)
        alive: dict[int, int] = {}
        for node, held in [*self.env.items(), (n, value)]:
            if node.op != "get_attr":
                alive |= _storages(held)
        if sum(alive.values()) > self.peak_bytes:
            self.peak_bytes, self.peak_node = sum(alive.values()), n.name
        return value


def _storages(value: Any) -> dict[int, int]:
    """Bytes by address of the memory that a tensor or several lie in."""
    tensors = value if isinstance(value, list | tuple) else (value,)
    storages = [tensor.untyped_storage() for tensor in tensors if isinstance(tensor, Tensor)]
    return {storage.data_ptr(): storage.nbytes() for storage in storages}


def time_layers(model: fx.GraphModule, batch: Tensor, *, threads: int, repeats: int) -> Timed:
    """Time every node and, interleaved with that, whole calls on `batch` (n, channels, height, width)."""
    with threads_set(threads), torch.inference_mode():
        ledger = _Ledger(model)
        ledger.run(batch)
        for _ in range(_WARM_UPS):
            whole = call_ms(model, batch)
        call_rss_bytes = _memory_of_a_call(model, batch)
        wanted = min(_MOST_REPEATS, max(repeats, round(1000 * _LEAST_SECONDS / max(whole, 0.001))))
        calls: list[float] = []
        rounds: list[dict[str, float]] = []
        for _ in range(wanted):
            calls.append(call_ms(model, batch))
            stopwatch = _Stopwatch(model)
            stopwatch.run(batch)
            rounds.append(stopwatch.milliseconds)
    inside = [sum(one.values()) / call for one, call in zip(rounds, calls, strict=True)]
    return Timed(
        node_ms={name: median(one[name] for one in rounds) for name in rounds[0]},
        whole_ms=median(calls),
        between_layers=max(0.0, 1 - median(inside)),
        repeats=wanted,
        shapes=ledger.shapes,
        views=frozenset(ledger.views),
        peak_activation_bytes=ledger.peak_bytes,
        peak_node=ledger.peak_node,
        call_rss_bytes=call_rss_bytes,
    )


def _memory_of_a_call(model: fx.GraphModule, batch: Tensor) -> int | None:
    """What a call adds to the resident memory at its peak; None where the kernel keeps older peaks."""
    before = memory.resident()
    if not memory.reset_peak():
        return None
    model(batch)
    return max(0, memory.peak() - before)


def call_ms(model: fx.GraphModule, batch: Tensor) -> float:
    """Milliseconds of one call on `batch` (n, channels, height, width)."""
    start = perf_counter()
    model(batch)
    return 1000 * (perf_counter() - start)


@contextmanager
def flushing_as_before() -> Iterator[bool]:
    """Leaves this thread's treatment of denormals as it was; gives whether it can be chosen here."""
    before = float(torch.tensor(2e-38) * 0.1) == 0.0
    try:
        yield torch.set_flush_denormal(before)
    finally:
        torch.set_flush_denormal(before)


@contextmanager
def threads_set(count: int) -> Iterator[None]:
    """PyTorch's thread count while the block runs."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
