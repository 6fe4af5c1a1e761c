"""Where the backward computation spends its time, by kind of layer, as autograd itself runs it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from time import perf_counter

from torch import Tensor
from torch.autograd.graph import Node

from slimcv.profile import kinds

ACCUMULATION = "summing gradients"
_BACKWARD = re.compile(r"Backward\d*$")
_WORD = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")


def backward_by_kind(loss: Tensor) -> dict[str, float]:
    """Compute the gradients of a scalar and return the milliseconds by kind of layer, the slowest first.

    Every node of the autograd graph is timed by a hook before and one after it; on a CPU they run one after
    the other.
    """
    kind_of = {node: _kind(node) for node in _nodes(loss)}
    begun: dict[Node, float] = {}
    spent: dict[str, float] = {}

    def begin(node: Node) -> None:
        begun[node] = perf_counter()

    def end(node: Node) -> None:
        kind = kind_of[node]
        spent[kind] = spent.get(kind, 0.0) + 1000 * (perf_counter() - begun[node])

    hooks = []
    for node in kind_of:
        hooks.append(node.register_prehook(lambda _grads, node=node: begin(node)))
        hooks.append(node.register_hook(lambda _inputs, _outputs, node=node: end(node)))
    loss.backward()  # type: ignore[no-untyped-call]
    for hook in hooks:
        hook.remove()
    return dict(sorted(spent.items(), key=lambda one: -one[1]))


def _nodes(loss: Tensor) -> Iterator[Node]:
    """The autograd graph, every node once."""
    seen: set[Node] = set()
    ahead = [loss.grad_fn]
    while ahead:
        node = ahead.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        yield node
        ahead += [source for source, _ in node.next_functions]


def _kind(node: Node) -> str:
    name = _BACKWARD.sub("", node.name().rpartition("::")[2])
    if name == "AccumulateGrad":
        return ACCUMULATION
    if name == "Convolution":
        if node._saved_transposed:  # type: ignore[attr-defined]
            return kinds.TRANSPOSED
        weight = tuple(node._saved_weight.shape)  # type: ignore[attr-defined]
        return kinds.kind_of_convolution(weight[2:], groups=node._saved_groups, channels=weight[0])  # type: ignore[attr-defined]
    return kinds.kind_of_function("_".join(_WORD.split(name.replace("2D", "2d"))).lower())
