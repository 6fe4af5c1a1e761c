"""Two profiles layer by layer: what became of each layer of the first, and what is new in the second."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class Cost:
    """What a layer, or what came in its place, costs; milliseconds as in the profile it is from."""

    ms: float
    macs: int
    parameters: int
    kinds: tuple[str, ...]


@dataclass(frozen=True)
class Pair:
    """A layer of the first profile and what stands in its place in the second, None where nothing does."""

    name: str
    before: Cost | None
    after: Cost | None


@dataclass(frozen=True)
class Difference:
    """Two profiles side by side; `models`, `totals` are those of the two, in order."""

    models: tuple[Mapping[str, Any], Mapping[str, Any]]
    totals: tuple[Mapping[str, Any], Mapping[str, Any]]
    layers: tuple[Pair, ...]

    def as_json(self) -> dict[str, Any]:
        """The object `slimcv profile --diff --format json` prints."""
        return {"schema_version": SCHEMA_VERSION, **asdict(self)}


def difference(before: Mapping[str, Any], after: Mapping[str, Any]) -> Difference:
    """Two profiles (`Profile.as_json()`) layer by layer, in the order of the first, what is new at the end.

    A layer and what was made of it share its qualified name: `conv1` and `conv1.depthwise`, `conv1.pointwise`
    belong together. Operators have names of their own only in their graph and are gathered by kind.
    """
    found = pairs(before["layers"], after["layers"])
    return Difference((before["model"], after["model"]), (before["totals"], after["totals"]), found)


def pairs(before: Sequence[Mapping[str, Any]], after: Sequence[Mapping[str, Any]]) -> tuple[Pair, ...]:
    """The layers of two profiles, as `difference` sets them side by side."""
    first, second = _gathered(before, ()), _gathered(after, _modules(before))
    found = [Pair(name, cost, second.get(name)) for name, cost in first.items()]
    found += [Pair(name, None, cost) for name, cost in second.items() if name not in first]
    return tuple(found)


def _modules(layers: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    """By their names; at the top of a network those are also their nodes'."""
    return tuple(layer["name"] for layer in layers if layer["parameters"] or layer["name"] != layer["node"])


def _gathered(layers: Sequence[Mapping[str, Any]], known: tuple[str, ...]) -> dict[str, Cost]:
    """Costs by name; what lies below a `known` name goes to it, operators go to their kind."""
    found: dict[str, Cost] = {}
    for layer in layers:
        name = _place(layer, known)
        cost = found.get(name, Cost(0.0, 0, 0, ()))
        kinds = cost.kinds if layer["kind"] in cost.kinds else (*cost.kinds, layer["kind"])
        found[name] = Cost(
            cost.ms + layer["ms"], cost.macs + layer["macs"], cost.parameters + layer["parameters"], kinds
        )
    return found


def _place(layer: Mapping[str, Any], known: tuple[str, ...]) -> str:
    if not layer["node"] or (not layer["parameters"] and not layer["macs"]):
        return f"({layer['kind']})"
    name: str = layer["name"]
    above = [one for one in known if name == one or name.startswith(f"{one}.")]
    return max(above, key=len, default=name)
