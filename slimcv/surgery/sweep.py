"""Running a lifted graph node by node on several batches side by side, stopping where values are wanted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import GraphModule, Interpreter, Node


class Sweep:
    """One walk through a graph, eval mode, without gradients; a value is dropped after its last reader.

    A module may be changed as long as the walk has not passed it.
    """

    def __init__(self, model: GraphModule, batches: Sequence[Tensor]) -> None:
        self._model = model
        self._nodes = list(model.graph.nodes)
        self._position = 0
        self._runs = [Interpreter(model, garbage_collect_values=True) for _ in batches]
        for run, batch in zip(self._runs, batches, strict=True):
            run.args_iter = iter((batch,))

    def inputs_of(self, node: Node) -> list[Tensor]:
        """What `node` is about to read as its first argument, one `(n, ...)` tensor a batch."""
        self._advance(self._nodes.index(node))
        return [run.env[node.args[0]] for run in self._runs]  # type: ignore[index]

    def outputs_of(self, node: Node) -> list[Tensor]:
        """What `node` gives, one `(n, ...)` tensor a batch."""
        if node.op == "output":
            return self.inputs_of(node)
        self._advance(self._nodes.index(node) + 1)
        return [run.env[node] for run in self._runs]

    @torch.no_grad()
    def outputs_with(self, node: Node, module: nn.Module) -> list[Tensor]:
        """The graph's outputs, one a batch, with `module` in the place of what `node` calls, from there on.

        The walk itself stays at `node`, and the model as it is.
        """
        start = self._nodes.index(node)
        self._advance(start)
        found = []
        for run in self._runs:
            rest = _Changed(self._model, str(node.target), module)
            rest.env = dict(run.env)
            for later in self._nodes[start:]:
                rest.env[later] = rest.run_node(later)
                for finished in rest.user_to_last_uses.get(later, []):
                    del rest.env[finished]
            found.append(rest.env[self._nodes[-1]])
        return found

    @torch.no_grad()
    def _advance(self, position: int) -> None:
        if position < self._position:
            raise ValueError("a sweep does not go back")
        for node in self._nodes[self._position : position]:
            for run in self._runs:
                run.env[node] = run.run_node(node)
                for finished in run.user_to_last_uses.get(node, []):
                    del run.env[finished]
        self._position = position


class _Changed(Interpreter):
    """Runs a graph in which another module stands at one qualified name."""

    def __init__(self, model: GraphModule, name: str, module: nn.Module) -> None:
        super().__init__(model, garbage_collect_values=True)
        self._name, self._changed = name, module

    def call_module(self, target: Any, args: Any, kwargs: Any) -> Any:
        if target == self._name:
            return self._changed(*args, **kwargs)
        return super().call_module(target, args, kwargs)


def peak_bytes(model: GraphModule, shapes: dict[str, tuple[int, ...]]) -> int:
    """Bytes of float32 values a sweep holds at once for one picture; `shapes` are those of a batch of two."""
    nodes = list(model.graph.nodes)
    last = {node: max((nodes.index(user) for user in node.users), default=0) for node in nodes}
    held = peak = 0
    sizes = {node: torch.Size(shapes.get(node.name, ())).numel() * 2 for node in nodes}
    for place, node in enumerate(nodes):
        held += sizes[node]
        peak = max(peak, held)
        held -= sum(sizes[given] for given in node.all_input_nodes if last[given] == place)
    return peak
