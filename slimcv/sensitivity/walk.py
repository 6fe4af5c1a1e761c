"""One walk through a network that stops at every layer and runs the rest with that layer changed.

What stands before the layer is computed once for all its changes, so that trying one costs half a network
on average.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import cached_property

import torch
from torch import Tensor, nn
from torch.fx import GraphModule, Node

from slimcv.surgery.graph import called
from slimcv.surgery.sweep import Sweep

Layer = nn.Conv2d | nn.Linear


class Walk:
    """A lifted graph in eval mode on batches (n, channels, height, width) of two sets of pictures.

    Outputs are compared on those `measured`, changes are fitted on those `fitted`. It goes forwards only: ask
    about layers in the order of `layers`.
    """

    def __init__(self, model: GraphModule, *, measured: Sequence[Tensor], fitted: Sequence[Tensor]) -> None:
        self._model = model
        self._batches = measured
        self._measured = Sweep(model, measured)
        self._fitted = self._measured if fitted is measured else Sweep(model, fitted)
        self._calls = Counter(node.target for node in model.graph.nodes if node.op == "call_module")

    @cached_property
    def layers(self) -> list[tuple[Node, Layer]]:
        """Every convolution and linear layer with the first node that calls it, in order of execution."""
        found: dict[str, tuple[Node, Layer]] = {}
        for node in self._model.graph.nodes:
            layer = called(self._model, node)
            if isinstance(layer, nn.Conv2d | nn.Linear):
                found.setdefault(str(node.target), (node, layer))
        return list(found.values())

    @cached_property
    def expected(self) -> Tensor:
        """The outputs (n, classes) of the network as it is."""
        with torch.no_grad():
            return torch.cat([self._model(batch) for batch in self._batches])

    def called_once(self, node: Node) -> bool:
        """Whether the layer has no other call in the network."""
        return self._calls[node.target] == 1

    def given(self, node: Node) -> list[Tensor]:
        """What the layer reads of the pictures to fit on, one tensor a batch."""
        return self._fitted.inputs_of(node)

    def outputs_with(self, node: Node, module: nn.Module) -> Tensor:
        """The outputs (n, classes) with `module` in the place of the layer, wherever it is called."""
        return torch.cat(self._measured.outputs_with(node, module))
