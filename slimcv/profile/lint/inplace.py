"""Operations that write into their input, which compilers can merge only where nobody else reads it."""

from __future__ import annotations

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


def inplace(subject: Subject) -> Iterator[Check]:
    """Whole calls with the operations in place and with new tensors, and whether others read the same."""
    working = [node for node in subject.model.graph.nodes if _functional(node) is not None]
    if not working:
        yield Check(_RULE, "fine", "no operation works in place")
        return
    ways = {
        "in place": Way(subject.run),
        "with new tensors": Way(called(without(subject.model), subject.picture)),
    }
    timed = contest(ways, seconds=SECONDS)
    now, other = timed.ms("in place"), timed.ms("with new tensors")
    text = (
        f"{many(len(working), 'operation')} in place: a call takes {figures.milliseconds(now)}, "
        f"{figures.milliseconds(other)} with new tensors instead"
    )
    shared = [node.name for node in working if len(node.all_input_nodes[0].users) > 1]
    if timed.faster("in place", "with new tensors", least=WORTH_SAYING):
        yield Check(_RULE, "fault", text, _FIX, now, other)
    elif shared:
        named = ", ".join(f"'{name}'" for name in shared[:_NAMED])
        text += f"; {named} change what other layers read too, which a compiler copies first and cannot merge"
        yield Check(_RULE, "note", text, _FIX, now, other)
    else:
        yield Check(_RULE, "fine", text, None, now, other)


def without(model: fx.GraphModule) -> fx.GraphModule:
    """The same network, sharing its weights, with a new tensor for each result."""
    graph = fx.Graph()
    copies: dict[fx.Node, fx.Node] = {}
    for node in model.graph.nodes:
        copies[node] = copied = graph.node_copy(node, copies.__getitem__)
        copied.target = _functional(node) or node.target
    return fx.GraphModule(model, graph)


def _functional(node: fx.Node) -> torch._ops.OpOverload | None:
    """The operator without the `_`; None for what does not work in place."""
    name = kinds.function_name(node) if node.op == "call_function" else ""
    if not name.endswith("_") or name.startswith("_") or not isinstance(node.target, torch._ops.OpOverload):
        return None
    packet = getattr(torch.ops.aten, name[:-1], None)
    found = getattr(packet, node.target._overloadname, None)
    return found if isinstance(found, torch._ops.OpOverload) else None
