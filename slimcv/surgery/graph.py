"""Reading and editing the lifted graph: which module a node calls, what may be replaced or erased."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import TypeVar

import torch
from torch import nn
from torch.fx import GraphModule, Node

from slimcv.models.randomness import StochasticDepth

aten = torch.ops.aten

Shapes = dict[str, tuple[int, ...]]
"""The shape of each tensor in a graph by the name of its node (slimcv.models.capture.shapes)."""

Kind = TypeVar("Kind", bound=nn.Module)

ACTIVATIONS = frozenset(
    getattr(aten, name).default
    for name in (
        *(
            "relu",
            "relu_",
            "relu6",
            "relu6_",
            "hardtanh",
            "hardtanh_",
            "leaky_relu",
            "leaky_relu_",
            "elu",
            "elu_",
        ),
        *("silu", "silu_", "gelu", "hardswish", "hardswish_", "hardsigmoid", "hardsigmoid_", "mish", "mish_"),
        *("sigmoid", "sigmoid_", "tanh", "tanh_", "elu_", "softplus", "selu", "selu_"),
    )
)
DROPOUTS = frozenset(
    getattr(aten, name).default
    for name in ("dropout", "dropout_", "feature_dropout", "feature_dropout_", "alpha_dropout")
)
COPIES = frozenset({aten.clone.default, aten.contiguous.default, aten.alias.default})
RESHAPES = frozenset(
    {
        torch.flatten,
        aten.flatten.using_ints,
        aten.view.default,
        aten.reshape.default,
        aten._unsafe_view.default,
    }
)
PERMUTATIONS = frozenset({aten.permute.default, aten.transpose.int, aten.movedim.int, aten.movedim.intlist})
DROPOUT_MODULES = (
    nn.Dropout,
    nn.Dropout1d,
    nn.Dropout2d,
    nn.AlphaDropout,
    nn.FeatureAlphaDropout,
    StochasticDepth,
)


def called(model: GraphModule, node: Node) -> nn.Module | None:
    """The module a node calls, or None where it calls none."""
    return model.get_submodule(str(node.target)) if node.op == "call_module" else None


def calls(model: GraphModule, kind: type[Kind]) -> Iterator[tuple[Node, Kind]]:
    """Every node that calls a module of this kind, in order; modules called twice are left out."""
    times = Counter(str(node.target) for node in model.graph.nodes if node.op == "call_module")
    for node in list(model.graph.nodes):
        if node.op == "call_module" and times[str(node.target)] == 1:
            module = model.get_submodule(str(node.target))
            if isinstance(module, kind):
                yield node, module


def called_once(model: GraphModule, node: Node) -> bool:
    """Whether the module this node calls has no other call in the graph (its weights may then be changed)."""
    return node.op == "call_module" and sum(other.target == node.target for other in model.graph.nodes) == 1


def is_dropout(model: GraphModule, node: Node) -> bool:
    """Whether a node is a dropout, as module or as function: the identity in eval mode."""
    return node.target in DROPOUTS or isinstance(called(model, node), DROPOUT_MODULES)


def is_elementwise(model: GraphModule, node: Node) -> bool:
    """Whether a node treats every value of its one input alike: dropouts, activations, copies."""
    return node.target in ACTIVATIONS or node.target in COPIES or is_dropout(model, node)


def source(node: Node) -> Node | None:
    """The node that gives this one's first argument."""
    first = node.args[0] if node.args else None
    return first if isinstance(first, Node) else None


def replace_module(model: GraphModule, node: Node, module: nn.Module) -> None:
    """Put another module at the qualified name that `node` calls, in the mode of the one it replaces."""
    module.train(model.get_submodule(str(node.target)).training)
    model.set_submodule(str(node.target), module)


def erase_unused(model: GraphModule, node: Node) -> None:
    """Erase a node without users, and upwards whatever then has none; placeholders and the output stay."""
    pending = [node]
    while pending:
        last = pending.pop()
        if not last.users and last.op not in ("placeholder", "output") and last in model.graph.nodes:
            pending += last.all_input_nodes
            model.graph.erase_node(last)


def tidy(model: GraphModule) -> None:
    """After an edit: check the graph, drop the modules nothing calls, and compile the forward anew."""
    model.graph.lint()
    model.delete_all_unused_submodules()
    model.recompile()
