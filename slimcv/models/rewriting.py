"""Rewriting an exported graph for steps: out of place, without bookkeeping, for any resolution."""

from __future__ import annotations

import operator
from collections.abc import Iterable
from typing import Any

import torch
from torch import fx

from slimcv.errors import SlimcvError
from slimcv.models.aten import arguments_of, name_of, pair, same_size, shape_of

aten = torch.ops.aten

CLASSIFIERS_ONLY = (
    "slimcv takes image classifiers: one tensor (n, channels, height, width) in, (n, classes) out"
)

_ASSERTIONS = {
    "_assert_scalar",
    "_assert_tensor_metadata",
    "sym_constrain_range",
    "sym_constrain_range_for_size",
}
_MAYBE_VIEWS = {"reshape", "flatten", "contiguous", "to", "unflatten", "_to_copy"}
_FLATTENING = {"view", "reshape", "flatten", "_unsafe_view", "squeeze"}


def single_output(graph: fx.Graph) -> None:
    """Makes the one tensor the graph puts out its output; SlimcvError where it is no image classifier."""
    inputs = graph.find_nodes(op="placeholder")
    output = graph.output_node()
    leaves = torch.utils._pytree.tree_leaves(output.args)
    if len(inputs) != 1 or len(leaves) != 1 or len(shape_of(leaves[0])) != 2:
        shapes = [tuple(map(str, shape_of(leaf))) for leaf in leaves if isinstance(leaf, fx.Node)]
        raise SlimcvError(
            f"the model maps {len(inputs)} input(s) to {len(leaves)} output(s) of shape {shapes}",
            CLASSIFIERS_ONLY,
        )
    output.args = (leaves[0],)


def drop_bookkeeping(graph: fx.Graph) -> None:
    """Removes guards, assertions and the batch counters of batch norms, which the modules keep themselves."""
    for node in reversed(list(graph.nodes)):
        assertion = node.op == "call_module" and str(node.target).startswith("_guards_fn")
        if assertion or name_of(node) in _ASSERTIONS:
            graph.erase_node(node)
    for node in list(graph.nodes):
        if node.op == "get_attr" and str(node.target).endswith("num_batches_tracked"):
            for user in reversed(_downstream(node)):
                graph.erase_node(user)
            graph.erase_node(node)


def _downstream(node: fx.Node) -> list[fx.Node]:
    """Every node that depends on `node`, in graph order."""
    found: dict[fx.Node, None] = {}
    waiting = list(node.users)
    while waiting:
        user = waiting.pop()
        if user not in found:
            found[user] = None
            waiting.extend(user.users)
    return [other for other in node.graph.nodes if other in found]


def out_of_place(graph: fx.Graph) -> None:
    """Puts `relu` for `relu_` and so on, where no other view of the overwritten tensor is read afterwards."""
    order = {node: place for place, node in enumerate(graph.nodes)}
    family: dict[fx.Node, fx.Node] = {}
    for node in list(graph.nodes):
        family[node] = node
        if node.op != "call_function" or not node.args or not isinstance(node.args[0], fx.Node):
            continue
        name, changed = name_of(node), node.args[0]
        counterpart = (
            getattr(aten, name[:-1], None) if name.endswith("_") and not name.endswith("__") else None
        )
        overload = getattr(counterpart, getattr(node.target, "_overloadname", ""), None)
        schema = getattr(node.target, "_schema", None)
        views = schema is not None and any(a.alias_info is not None for a in schema.arguments)
        if overload is None or changed.op == "get_attr":
            if views or name in _MAYBE_VIEWS or node.target is operator.getitem:
                family[node] = family[changed]
            continue
        if name.startswith("bernoulli") or _read_elsewhere(node, family=family, order=order):
            family[node] = family[changed]
            continue
        for user in [user for user in changed.users if order[user] > order[node]]:
            user.replace_input_with(changed, node)
        node.target = overload


def _read_elsewhere(node: fx.Node, *, family: dict[fx.Node, fx.Node], order: dict[fx.Node, int]) -> bool:
    """Whether another tensor that shares memory with the one `node` overwrites is read after `node`."""
    changed: Any = node.args[0]
    relatives = [
        other for other, root in family.items() if root is family[changed] and other not in (changed, node)
    ]
    return any(order[user] > order[node] for other in relatives for user in other.users)


def relative_shapes(graph: fx.Graph) -> None:
    """Writes flattening, whole-map pooling and reshapes so that they hold for other resolutions."""
    for node in list(graph.nodes):
        name = name_of(node)
        data = node.args[0] if node.args and isinstance(node.args[0], fx.Node) else None
        if data is None or not (before := shape_of(data)) or not (after := shape_of(node)):
            continue
        if name in _FLATTENING and len(before) == 4 and len(after) == 2 and same_size(before[0], after[0]):
            node.target, node.args, node.kwargs = torch.flatten, (data, 1), {}
        elif name == "avg_pool2d" and _covers(node, before):
            node.target, node.args, node.kwargs = aten.adaptive_avg_pool2d.default, (data, [1, 1]), {}
        elif name in ("view", "reshape", "_unsafe_view") and len(before) > 2:
            _relative_view(node, data, before=before, after=after)


def _covers(node: fx.Node, shape: tuple[Any, ...]) -> bool:
    """Whether an average pooling's one window is the whole map."""
    arguments = arguments_of(node)
    whole = pair(arguments["kernel_size"]) == tuple(shape[-2:])
    return whole and not any(pair(arguments["padding"])) and arguments["divisor_override"] is None


def _relative_view(node: fx.Node, data: fx.Node, *, before: tuple[Any, ...], after: tuple[Any, ...]) -> None:
    sizes: list[Any] = list(node.args[1])  # type: ignore[arg-type]
    leading = _common(before, after)
    trailing = _common(before[leading:][::-1], after[leading:][::-1])
    with node.graph.inserting_before(node):
        for place in [*range(leading), *range(len(after) - trailing, len(after))]:
            origin = place if place < leading else place - len(after) + len(before)
            if isinstance(sizes[place], int) and sizes[place] != -1:
                sizes[place] = node.graph.call_function(aten.sym_size.int, (data, origin))
    middle = range(leading, len(after) - trailing)
    if len(middle) == 1 and -1 not in [size for size in sizes if isinstance(size, int)]:
        sizes[middle[0]] = -1
    node.args = (data, sizes)


def _common(first: Iterable[Any], second: Iterable[Any]) -> int:
    """How many dimensions the two shapes have in common, counted from the first."""
    count = 0
    for one, other in zip(first, second, strict=False):
        if not same_size(one, other):
            break
        count += 1
    return count


def drop_dead(graph: fx.Graph) -> None:
    """Removes what nothing reads, noise of a replaced stochastic depth included."""
    for node in reversed(list(graph.nodes)):
        if node.op in ("call_function", "get_attr") and not node.users and not _writes_state(node):
            graph.erase_node(node)


def _writes_state(node: fx.Node) -> bool:
    """Whether a call nobody reads changes a tensor in place that is not thrown away with it."""
    schema = getattr(node.target, "_schema", None)
    if node.op != "call_function" or schema is None or not schema.is_mutable:
        return False
    changed = node.args[0] if node.args else None
    return not (isinstance(changed, fx.Node) and name_of(changed) in ("new_empty", "empty"))
