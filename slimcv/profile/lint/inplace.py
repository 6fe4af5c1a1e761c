"""Operations that write into their input, which compilers can merge only where nobody else reads it."""

from __future__ import annotations

import re
from collections.abc import Iterator

import torch
from torch import fx

from slimcv.profile import kinds
from slimcv.profile.contest import Way, contest
from slimcv.profile.layers import Check
from slimcv.profile.lint.subject import SECONDS, WORTH_SAYING, Subject, called, many
from slimcv.report import figures

_RULE = "in-place operations"
_NAMED = 3
_FIX = "inplace=False, or the function without the '_' at its end"

_WRITTEN = re.compile(r"\w*[A-Za-z0-9]_(_\d+)?")
"""The lifted graph has new tensors everywhere; `relu_` and `relu__1` still have their names."""


def inplace(subject: Subject) -> Iterator[Check]:
    """Whole calls as the network was written against calls with new tensors, as slimcv runs it."""
    working = {
        node: operator for node in subject.model.graph.nodes if (operator := _written(node)) is not None
    }
    if not working:
        yield Check(_RULE, "fine", "no operation works in place")
        return
    written = as_written(subject.model)
    ways = {"in place": Way(called(written, subject.picture)), "with new tensors": Way(subject.run)}
    timed = contest(ways, seconds=SECONDS)
    now, other = timed.ms("in place"), timed.ms("with new tensors")
    text = (
        f"{many(len(working), 'operation')} of the network as it was written, in place: a call takes "
        f"{figures.milliseconds(now)}, {figures.milliseconds(other)} with new tensors, which is how slimcv "
        "runs and exports it"
    )
    shared = [node.name for node in working if not _alone(node)]
    if timed.faster("in place", "with new tensors", least=WORTH_SAYING):
        yield Check(_RULE, "fault", text, _FIX, now, other)
    elif shared:
        named = ", ".join(f"'{name}'" for name in shared[:_NAMED])
        text += f"; {named} change what others read too, which a compiler copies first and cannot merge"
        yield Check(_RULE, "note", text, _FIX, now, other)
    else:
        yield Check(_RULE, "fine", text, None, now, other)


def as_written(model: fx.GraphModule) -> fx.GraphModule:
    """The same network, sharing its weights, in place again wherever nobody else reads the input."""
    graph = fx.Graph()
    copies: dict[fx.Node, fx.Node] = {}
    for node in model.graph.nodes:
        copies[node] = copied = graph.node_copy(node, copies.__getitem__)
        operator = _written(node)
        if operator is not None and _alone(node):
            copied.target = operator
    return fx.GraphModule(model, graph)


def _alone(node: fx.Node) -> bool:
    """Whether an operation is the only reader of what it changes, which is not the picture itself."""
    source = node.all_input_nodes[0]
    return len(source.users) == 1 and source.op in ("call_module", "call_function")


def _written(node: fx.Node) -> torch._ops.OpOverload | None:
    """The operator in place that this one was written as; None for those written with a new tensor."""
    if node.op != "call_function" or not _WRITTEN.fullmatch(node.name) or not node.all_input_nodes:
        return None
    if not isinstance(node.target, torch._ops.OpOverload):
        return None
    packet = getattr(torch.ops.aten, f"{kinds.function_name(node).removesuffix('_')}_", None)
    found = getattr(packet, node.target._overloadname, None)
    return found if isinstance(found, torch._ops.OpOverload) else None
