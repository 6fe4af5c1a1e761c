"""What the rules of the lint look at, and what they measure with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, fx, nn

from slimcv.profile.layers import Layer
from slimcv.profile.roofline.limits import Limits

SECONDS = 0.4
"""What a rule may spend on its rounds, if three of them take no longer."""

WORTH_SAYING = 1.1
"""A tenth: below that a gain is no reason to change a program."""


@dataclass(frozen=True)
class Subject:
    """The network in eval mode, its layers as timed, and one picture for it.

    `shapes` are those of the graph's tensors by node name; `limits` are this machine's, None where they are
    not known.
    """

    model: fx.GraphModule
    picture: Tensor
    layers: Sequence[Layer]
    shapes: dict[str, tuple[int, ...]]
    threads: int
    limits: Limits | None = None

    def run(self) -> Tensor:
        """One call."""
        return called(self.model, self.picture)()

    def convolutions(self) -> list[tuple[Layer, nn.Conv2d, tuple[int, ...]]]:
        """The convolutions that are modules, the slowest first, with the shape that each reads."""
        reads = {
            node.name: (self.model.get_submodule(str(node.target)), node.all_input_nodes[0].name)
            for node in self.model.graph.nodes
            if node.op == "call_module" and node.all_input_nodes
        }
        found = []
        for layer in sorted(self.layers, key=lambda layer: -layer.ms):
            module, source = reads.get(layer.node, (None, ""))
            if isinstance(module, nn.Conv2d):
                found.append((layer, module, self.shapes[source]))
        return found


def called(module: nn.Module, pixels: Tensor) -> Callable[[], Tensor]:
    """A call of `module` without gradients, to be made later."""

    def call() -> Tensor:
        with torch.no_grad():
            answer: Tensor = module(pixels)
        return answer

    return call


def noise(shape: tuple[int, ...]) -> Tensor:
    """Standard normal numbers, the same at every call."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def many(count: int, what: str) -> str:
    """A number of things in words: 1 thread, 2 threads."""
    return f"{count:,} {what}" + ("" if count == 1 else "s")
