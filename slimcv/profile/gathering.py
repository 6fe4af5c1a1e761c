"""From the times of nodes to layers: names, kinds, shapes, costs, and whose time a runtime's node is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import prod

from torch import fx

from slimcv.measure import macs
from slimcv.measure.layers import held, is_weight, origin
from slimcv.profile import kinds
from slimcv.profile.counters import Executed, Ran, owner
from slimcv.profile.layers import Layer
from slimcv.profile.roofline import Demand, Limits, Load, load, reached
from slimcv.profile.timing import Timed
from slimcv.step import Variant

CALLS = ("call_module", "call_function", "call_method")
OWN = "runtime's own"
"""The kind of what a runtime does for itself: changes of layout and precision at the borders."""


def layers_of(variant: Variant, timed: Timed) -> tuple[Layer, ...]:
    """Every call of the graph with what it takes in eager PyTorch."""
    model = variant.model
    weights = parameters(model)
    costs = {node.name: cost for node, cost in macs.by_node(model, variant.input).items()}
    total_ms = sum(timed.node_ms.values())
    blocks = _blocks(model)
    return tuple(
        Layer(
            name=macs.layer_name(node),
            node=node.name,
            kind=_kind(node, timed),
            output=timed.shapes[node.name][1:] if node.name in timed.shapes else None,
            parameters=weights[node.name],
            macs=costs.get(node.name, 0),
            ms=timed.node_ms[node.name],
            share=timed.node_ms[node.name] / total_ms,
            block=blocks[node.name],
        )
        for node in model.graph.nodes
        if node.op in CALLS
    )


def _kind(node: fx.Node, timed: Timed) -> str:
    """Whether a reshape is a view, which is free, or a copy shows only when it is run."""
    kind = kinds.kind_of(node, timed.shapes)
    return kinds.COPY if kind == kinds.RESHAPE and node.name not in timed.views else kind


def counted(layers: Sequence[Layer], ran: Ran) -> tuple[Layer, ...]:
    """The layers with the times a runtime counted; what is its own comes last, a row for each kind."""
    costs = {layer.node: layer.macs for layer in layers}
    names = {layer.node: layer.name for layer in layers}
    total_ms = sum(node.ms for node in ran.nodes) or 1.0
    owned: dict[str, list[Executed]] = {}
    merged: dict[str, str] = {}
    own: dict[str, float] = {}
    for node in ran.nodes:
        first = _owner(node, costs)
        if first is None:
            own[node.kind] = own.get(node.kind, 0.0) + node.ms
            continue
        owned.setdefault(first, []).append(node)
        merged |= {name: first for name in node.sources if name != first}
    found = [
        _counted(layer, owned.get(layer.node, []), names.get(merged.get(layer.node, ""))) for layer in layers
    ]
    found += [
        Layer(f"({kind})", "", OWN, None, 0, 0, ms, 0.0, runs_as=kind) for kind, ms in own.items() if ms > 0
    ]
    return tuple(replace(layer, share=layer.ms / total_ms) for layer in found)


def _owner(node: Executed, costs: Mapping[str, int]) -> str | None:
    """The layer of the network, of those in `costs`, that its time goes to."""
    return owner([name for name in node.sources if name in costs], costs)


def _counted(layer: Layer, nodes: Sequence[Executed], merged_into: str | None) -> Layer:
    if not nodes:
        return replace(layer, ms=0.0, merged_into=merged_into)
    slowest = max(nodes, key=lambda node: node.ms)
    return replace(layer, ms=sum(node.ms for node in nodes), runs_as=slowest.kind)


def loads(
    layers: Sequence[Layer], needs: Mapping[str, Demand], limits: Limits, ran: Ran | None, *, precision: str
) -> dict[str, Load]:
    """By node, what every layer asks of this machine in the precision that it was run in."""
    computed = _precisions(layers, ran) if ran is not None else {}
    return {
        layer.node: load(needs[layer.node], limits, precision=computed.get(layer.node, precision))
        for layer in layers
        if layer.node in needs
    }


def against_limits(layers: Sequence[Layer], asked: Mapping[str, Load], limits: Limits) -> tuple[Layer, ...]:
    """The layers with what they reach of this machine's limits."""
    return tuple(
        reached(layer, asked[layer.node], limits) if layer.node in asked else layer for layer in layers
    )


def _precisions(layers: Sequence[Layer], ran: Ran) -> dict[str, str]:
    """By node, that of the slowest of what ran for it: changes of precision around it say nothing of it.

    What is merged into a layer is computed as that is.
    """
    costs = {layer.node: layer.macs for layer in layers}
    found: dict[str, str] = {}
    merged: dict[str, str] = {}
    for node in sorted(ran.nodes, key=lambda node: node.ms):
        first = _owner(node, costs)
        if first is not None and node.precision is not None:
            found[first] = node.precision
            merged |= dict.fromkeys(node.sources, node.precision)
    return merged | found


def demands(model: fx.GraphModule, layers: Sequence[Layer], timed: Timed) -> dict[str, Demand]:
    """What every layer must read, write and compute for one picture, by node."""
    costs = {layer.node: layer.macs for layer in layers}
    found = {}
    for node in model.graph.nodes:
        if node.op not in CALLS:
            continue
        maps = [one.name for one in (*node.all_input_nodes, node) if origin(one).op != "get_attr"]
        moved = sum(prod(timed.shapes[name]) for name in maps if name in timed.shapes)
        if _kind(node, timed) == kinds.RESHAPE:
            moved = 0
        weights = sum(tensor.numel() for tensor in held(model, node))
        found[node.name] = Demand(2 * costs.get(node.name, 0), moved, weights)
    return found


def names(model: fx.GraphModule) -> dict[str, str]:
    """What each node of the graph is called in a table."""
    return {node.name: macs.layer_name(node) if node.op in CALLS else node.name for node in model.graph.nodes}


def parameters(model: fx.GraphModule) -> dict[str, int]:
    """Parameters by node; what several nodes share counts at the first."""
    seen: set[int] = set()
    found = {}
    for node in model.graph.nodes:
        if node.op in CALLS:
            new = [one for one in held(model, node) if id(one) not in seen and is_weight(one)]
            seen.update(map(id, new))
            found[node.name] = sum(tensor.numel() for tensor in new)
    return found


def weight_bytes(model: fx.GraphModule) -> int:
    """Bytes of all parameters and buffers."""
    tensors = [*model.parameters(), *model.buffers()]
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def _blocks(model: fx.GraphModule) -> dict[str, str]:
    """By node, the module that its layer is a part of; an operator belongs where what it reads is made."""
    found: dict[str, str] = {}
    for node in model.graph.nodes:
        name = macs.layer_name(node) if node.op in CALLS else ""
        read = [found[source.name] for source in node.all_input_nodes if found.get(source.name)]
        found[node.name] = (
            name.rpartition(".")[0] if "." in name else (read[-1] if read and name == node.name else "")
        )
    return found
