"""What the maps of a training step take, foretold from one picture, and for how many there is room."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx
from torch.fx import GraphModule

from slimcv.step import InputSpec

SHARE_OF_FREE = 0.8
"""The part of the free memory that training may take where no limit is given."""

COPIES = 5
"""Beside the weights training has their gradients, two moments, their running average and the best so far."""


@dataclass(frozen=True)
class Maps:
    """Bytes of all maps that a network makes of a picture, the picture included, and of the largest."""

    together: int
    largest: int

    @property
    def training_bytes(self) -> int:
        """What a picture takes in a training step.

        All maps count as kept for the gradients of the weights, though not every layer needs its own; on the
        way back there are the gradients of two at once.
        """
        return self.together + 2 * self.largest


def most(model: GraphModule, maps: Maps, free_bytes: int | None, *, processes: int = 1) -> int:
    """The pictures of a step for which `free_bytes` of memory have room; any number where nobody tells.

    What goes with the weights has its place there too. So many `processes` of the
    machine share the memory.
    """
    if free_bytes is None:
        return sys.maxsize
    weights: int = COPIES * sum(value.nbytes for value in model.state_dict().values())
    left = int(SHARE_OF_FREE * free_bytes / processes) - weights
    return max(0, left // maps.training_bytes)


def of(model: GraphModule, input: InputSpec) -> Maps:
    """The maps of one picture, from a forward computation in float32."""
    kept = _Kept(model)
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        kept.run(torch.zeros(1, *input.shape))
    sizes = [storage.nbytes() for storage in kept.storages.values()]
    return Maps(sum(sizes), max(sizes))


class _Kept(fx.Interpreter):
    """Runs a graph and keeps what each node made, by the memory it lies in."""

    def __init__(self, model: GraphModule) -> None:
        super().__init__(model, garbage_collect_values=False)
        self.storages: dict[int, torch.UntypedStorage] = {}

    def run_node(self, n: fx.Node) -> Any:
        """A node's result."""
        result = super().run_node(n)
        if isinstance(result, torch.Tensor) and n.op != "get_attr":
            storage = result.untyped_storage()
            self.storages[storage.data_ptr()] = storage
        return result
