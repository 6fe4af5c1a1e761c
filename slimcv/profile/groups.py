"""Layers together, by kind and by block: their costs in all, and what they reach of this machine's limits."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

from slimcv.profile.layers import Kind, Layer
from slimcv.profile.roofline import Limits, Load, reached


def gather(
    layers: Iterable[Layer], loads: Mapping[str, Load] | None = None, limits: Limits | None = None
) -> tuple[Kind, ...]:
    """The layers by kind, the slowest kind first; with `loads` by node, against the machine's limits."""
    found = _together(layers, lambda layer: layer.kind, loads, limits)
    return tuple(sorted(found, key=lambda kind: -kind.ms))


def gather_blocks(
    layers: Iterable[Layer], loads: Mapping[str, Load] | None = None, limits: Limits | None = None
) -> tuple[Kind, ...]:
    """The layers by the block they belong to, in the network's order; none where there is but one."""
    blocks = _together(layers, lambda layer: layer.block, loads, limits)
    return blocks if len(blocks) > 1 else ()


def _together(
    layers: Iterable[Layer],
    of: Callable[[Layer], str],
    loads: Mapping[str, Load] | None,
    limits: Limits | None,
) -> tuple[Kind, ...]:
    groups: dict[str, list[Layer]] = {}
    for layer in layers:
        groups.setdefault(of(layer), []).append(layer)
    found = [_sum(name, members) for name, members in groups.items()]
    if loads is None or limits is None:
        return tuple(found)
    return tuple(reached(group, _load(groups[group.kind], loads), limits) for group in found)


def _sum(name: str, members: Sequence[Layer]) -> Kind:
    return Kind(
        kind=name,
        layers=len(members),
        parameters=sum(layer.parameters for layer in members),
        macs=sum(layer.macs for layer in members),
        ms=sum(layer.ms for layer in members),
        share=sum(layer.share for layer in members),
    )


def _load(members: Sequence[Layer], loads: Mapping[str, Load]) -> Load:
    """What they ask for in all; the maps of a layer without a time of its own never leave the CPU."""
    whole = Load()
    for layer in members:
        if layer.node in loads:
            own = loads[layer.node]
            whole += own if layer.ms > 0 else replace(own, activation_bytes=0)
    return whole
