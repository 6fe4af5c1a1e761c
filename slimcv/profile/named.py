"""A network as ONNX whose every operator and value is named after the layer of the graph it comes from.

Runtimes merge, split and rename what they run, but derive their names from those in the file. Calls of the
lifted graph are put into modules called `at12_`, for the 12th node: torch's exporter keeps such paths in its
notes on each operator and in the names of weights, through its own merging too.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from torch import fx, nn

from slimcv.models.randomness import StochasticDepth
from slimcv.runtimes import onnxruntime as onnx_file

if TYPE_CHECKING:
    from slimcv.step import Variant

_MARK = re.compile(r"at(\d+)_")
_VALUE = re.compile(r"(?:at\d+_)*\d+out\d+")
_SCOPES = "pkg.torch.onnx.name_scopes"
_CALLS = ("call_module", "call_function", "call_method")


@dataclass(frozen=True)
class Named:
    """A serialised ONNX model, and the nodes of the lifted graph by the number in its marks.

    `reads` has for every value that an operator makes those it reads, `aliases` what values are called that
    had to keep their names.
    """

    model: bytes
    nodes: tuple[str, ...]
    reads: dict[str, tuple[str, ...]] = field(default_factory=dict)
    aliases: dict[str, str] = field(default_factory=dict)

    def sources(self, *names: str) -> tuple[str, ...]:
        """The nodes of the lifted graph that a runtime's names, or lists of them, speak of, each once."""
        parts = (part.strip() for name in names for part in name.split(","))
        spoken = marks(*(self.aliases.get(part, part) for part in parts))
        return tuple(self.nodes[mark] for mark in spoken if mark < len(self.nodes))

    def value(self, name: str) -> str | None:
        """The value of this model that one of a runtime's graph, such as `at3_7out0_nchwc`, stands for."""
        if name in self.aliases:
            return name
        found = _VALUE.match(name)
        return found[0] if found is not None and found[0] in self.reads else None


def export(variant: Variant) -> Named:
    """The network as ONNX, fed normalised planes. Raises SlimcvError where it cannot be written."""
    onnx_file.require_size(variant)
    nodes = list(variant.model.graph.nodes)
    model = onnx_file.exported(marked(variant.model), variant.input)
    scopes = [_scopes(node) for node in model.graph.node]
    onnx_file.tidy(model)
    aliases = _rename(model.graph, scopes)
    reads = {made: tuple(node.input) for node in model.graph.node for made in node.output}
    return Named(model.SerializeToString(), tuple(node.name for node in nodes), reads, aliases)


def marks(*names: str) -> tuple[int, ...]:
    """The numbers of the marks in these names, in order, each once."""
    return tuple(dict.fromkeys(int(mark) for name in names for mark in _MARK.findall(name)))


def marked(model: fx.GraphModule) -> fx.GraphModule:
    """The same graph with each call in a module of its own, `at12_` for node 12; weights are shared.

    Dropouts, idle in eval mode, are left out.
    """
    graph, parts = fx.Graph(), dict[str, Any]()
    kept: dict[fx.Node, fx.Node] = {}
    for number, node in enumerate(model.graph.nodes):
        called = model.get_submodule(str(node.target)) if node.op == "call_module" else None
        if isinstance(called, nn.modules.dropout._DropoutNd | StochasticDepth):
            kept[node] = kept[node.args[0]]
            continue
        kept[node] = copied = graph.node_copy(node, kept.__getitem__)
        if node.op in _CALLS:
            copied.op, copied.target = "call_module", f"at{number}_"
            parts[copied.target] = Call(called if called is not None else node.target)
        elif node.op == "get_attr":
            parts[str(node.target)] = operator.attrgetter(str(node.target))(model)
    graph.lint()
    return fx.GraphModule(parts, graph).eval()


class Call(nn.Module):
    """A module, a function or a method by name, called with what the module is called with."""

    def __init__(self, target: Any) -> None:
        super().__init__()
        self.target = target

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """What the target gives."""
        if isinstance(self.target, str):
            return getattr(args[0], self.target)(*args[1:], **kwargs)
        return self.target(*args, **kwargs)


def _scopes(node: Any) -> list[str]:
    """The marks in the exporter's note on an operator; for a merged one those of its last part."""
    return next((_MARK.findall(note.value) for note in node.metadata_props if note.key == _SCOPES), [])


def _rename(graph: Any, scopes: Iterable[list[str]]) -> dict[str, str]:
    """Name operators, and the values they make, after the marks in their notes and in their weights.

    Returns the marks of values that keep their names.
    Values keep their names where an operator holds a graph of its own, which may speak of them.
    """
    fixed = {value.name for value in (*graph.input, *graph.output)}
    nested = any(attribute.HasField("g") for node in graph.node for attribute in node.attribute)
    new: dict[str, str] = {}
    aliases: dict[str, str] = {}
    for number, (node, scope) in enumerate(zip(graph.node, scopes, strict=True)):
        weights = [mark for name in node.input for mark in _MARK.findall(name)]
        made_of = "".join(f"at{mark}_" for mark in dict.fromkeys([*scope[-1:], *weights]))
        node.name = f"{made_of}{number}"
        for place, name in enumerate(node.input):
            node.input[place] = new.get(name, name)
        for place, name in enumerate(node.output):
            if name in fixed or nested:
                aliases[name] = made_of
            elif name:
                new[name] = node.output[place] = f"{made_of}{number}out{place}"
    for value in graph.value_info:
        value.name = new.get(value.name, value.name)
    return aliases
