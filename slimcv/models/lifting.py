"""From an exported program back to modules: the lifted graph that every step reads and rewrites.

`torch.export` leaves a flat graph of ATen operators. Here each convolution, linear, normalisation and dropout
becomes an `nn.Module` again, at the qualified name its parameters had, so that steps can find and replace
layers by name.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import torch
from torch import fx, nn
from torch.export import ExportedProgram

from slimcv.models.aten import Arguments, arguments_of, name_of, pair, shape_of
from slimcv.models.randomness import DROPOUTS, free_name, lift_dropout, mark_stochastic_depth
from slimcv.models.rewriting import drop_bookkeeping, drop_dead, out_of_place, relative_shapes, single_output


def lift(exported: ExportedProgram) -> fx.GraphModule:
    """The lifted graph of an exported image classifier, in eval mode; parameters are shared with `exported`.

    Raises SlimcvError where the program does not map one tensor to one tensor.
    """
    source = exported.module(check_guards=False)
    graph = source.graph
    graph.owning_module = None
    single_output(graph)
    graph.set_codegen(fx.graph.CodeGen())
    drop_bookkeeping(graph)
    out_of_place(graph)
    mark_stochastic_depth(graph)
    parts: dict[str, Any] = _modules(source)
    relative_shapes(graph)
    drop_dead(graph)
    for node in graph.nodes:
        if node.op == "get_attr":
            parts[node.target] = operator.attrgetter(node.target)(source)
        elif node.op == "call_module" and node.target not in parts:
            parts[node.target] = source.get_submodule(node.target)
        node.meta.clear()
    graph.lint()
    lifted = fx.GraphModule(parts, graph)
    lifted.eval()
    return lifted


def _modules(source: nn.Module) -> dict[str, Any]:
    """Replaces operators by module calls in the graph of `source`; the modules by qualified name."""
    graph: fx.Graph = source.graph  # type: ignore[assignment]
    made: dict[str, Any] = {}
    owners = _owners(graph)
    for owner, calls in owners.items():
        module = _build(calls, owner=owner, source=source)
        if module is None:
            continue
        made[owner] = module
        for call in calls:
            _call_module(call, owner)
    for node in list(graph.nodes):
        if node.op == "call_module" and "module" in node.meta:
            node.target = free_name(str(node.target), made, module=node.meta["module"], source=source)
            made[node.target] = node.meta["module"]
        elif name_of(node) in DROPOUTS:
            lift_dropout(node, made, source=source)
    return made


def _owners(graph: fx.Graph) -> dict[str, list[fx.Node]]:
    """Calls of liftable operators by the module whose parameters, and no others, they take."""
    prefixes: dict[str, set[fx.Node]] = {}
    for node in graph.find_nodes(op="get_attr"):
        prefixes.setdefault(node.target.rpartition(".")[0], set()).add(node)
    owners: dict[str, list[fx.Node]] = {}
    for prefix, attributes in prefixes.items():
        calls = list(dict.fromkeys(user for attribute in attributes for user in attribute.users))
        nested = any(other.startswith(prefix + ".") for other in prefixes)
        if prefix and not nested and calls and all(name_of(call) in _BUILDERS for call in calls):
            order = {node: place for place, node in enumerate(graph.nodes)}
            owners[prefix] = sorted(calls, key=order.__getitem__)
    return owners


def _build(calls: list[fx.Node], *, owner: str, source: nn.Module) -> nn.Module | None:
    """The module all `calls` are calls of; None where their settings differ or they take foreign tensors."""
    name = name_of(calls[0])
    settings = []
    for call in calls:
        arguments = arguments_of(call)
        arguments.pop("training", None)
        tensors = [arguments.pop(key) for key in _TENSORS if key in arguments]
        data = arguments.pop("input")
        expected = [f"{owner}.{key}" for key in _TENSORS if key in arguments_of(call)]
        for tensor, target in zip(tensors, expected, strict=True):
            if tensor is not None and (not isinstance(tensor, fx.Node) or tensor.target != target):
                return None
        if not isinstance(data, fx.Node) or data.op == "get_attr":
            return None
        held = [None if t is None else operator.attrgetter(str(t.target))(source) for t in tensors]
        settings.append(
            (name_of(call), len(shape_of(data)), str(arguments), [None if h is None else id(h) for h in held])
        )
    if any(other != settings[0] for other in settings[1:]):
        return None
    module = _BUILDERS[name](_held(calls[0], source), settings[0][1])
    return None if module is None else _share(module, source=source, owner=owner)


def _held(call: fx.Node, source: nn.Module) -> Arguments:
    """A call's arguments with the tensors themselves in place of the nodes that fetch them."""
    return {
        key: operator.attrgetter(str(value.target))(source)
        if isinstance(value, fx.Node) and value.op == "get_attr"
        else value
        for key, value in arguments_of(call).items()
    }


def _share(module: nn.Module, *, source: nn.Module, owner: str) -> nn.Module:
    """Gives a module built on the meta device the tensors of the original at the same name."""
    original = source.get_submodule(owner)
    for name in list(module._parameters):
        module._parameters[name] = original._parameters.get(name)
        if (value := original._buffers.get(name)) is not None:
            module._parameters[name] = nn.Parameter(value, requires_grad=value.is_floating_point())
    for name, buffer in list(module._buffers.items()):
        kept = original._buffers.get(name)
        module._buffers[name] = torch.zeros_like(buffer, device="cpu") if kept is None else kept  # type: ignore[arg-type]
    return module


def _call_module(call: fx.Node, target: str) -> None:
    graph = call.graph
    with graph.inserting_before(call):
        node = graph.call_module(target, (arguments_of(call)["input"],))
    node.meta.update(call.meta)
    call.replace_all_uses_with(node)
    graph.erase_node(call)


def _conv(arguments: Arguments, rank: int) -> nn.Module | None:
    weight, groups = arguments["weight"], arguments["groups"]
    if rank != 4:
        return None
    padding = arguments["padding"]
    return nn.Conv2d(
        weight.shape[1] * groups, weight.shape[0], tuple(weight.shape[2:]), stride=pair(arguments["stride"]),
        padding=padding if isinstance(padding, str) else pair(padding), dilation=pair(arguments["dilation"]),
        groups=groups, bias=arguments["bias"] is not None, device="meta",
    )  # fmt: skip


def _any_conv(arguments: Arguments, rank: int) -> nn.Module | None:
    """The one convolution operator of traced TorchScript and of the ATen core."""
    return _conv_transpose(arguments, rank) if arguments["transposed"] else _conv(arguments, rank)


def _conv_transpose(arguments: Arguments, rank: int) -> nn.Module | None:
    weight, groups = arguments["weight"], arguments["groups"]
    if rank != 4:
        return None
    return nn.ConvTranspose2d(
        weight.shape[0], weight.shape[1] * groups, tuple(weight.shape[2:]), stride=pair(arguments["stride"]),
        padding=pair(arguments["padding"]), output_padding=pair(arguments["output_padding"]), groups=groups,
        bias=arguments["bias"] is not None, dilation=pair(arguments["dilation"]), device="meta",
    )  # fmt: skip


def _linear(arguments: Arguments, rank: int) -> nn.Module | None:  # noqa: ARG001
    out_features, in_features = arguments["weight"].shape
    return nn.Linear(in_features, out_features, bias=arguments["bias"] is not None, device="meta")


def _batch_norm(arguments: Arguments, rank: int) -> nn.Module | None:
    kinds: dict[int, type[nn.modules.batchnorm._BatchNorm]] = {
        2: nn.BatchNorm1d,
        3: nn.BatchNorm1d,
        4: nn.BatchNorm2d,
    }
    weight, mean = arguments["weight"], arguments["running_mean"]
    if rank not in kinds or (weight is None) != (arguments["bias"] is None):
        return None
    channels = (mean if weight is None else weight).shape[0]
    # A norm that averages over all batches (momentum=None) is exported as 0.0 in eval mode, which none has
    # that learns its statistics.
    momentum = arguments["momentum"] or None
    return kinds[rank](
        channels, eps=arguments["eps"], momentum=momentum, affine=weight is not None,
        track_running_stats=mean is not None, device="meta",
    )  # fmt: skip


def _layer_norm(arguments: Arguments, rank: int) -> nn.Module | None:  # noqa: ARG001
    bias = arguments["bias"] is not None
    return nn.LayerNorm(list(arguments["normalized_shape"]), eps=arguments["eps"], bias=bias, device="meta")


def _group_norm(arguments: Arguments, rank: int) -> nn.Module | None:  # noqa: ARG001
    weight = arguments["weight"]
    if weight is None or arguments["bias"] is None:
        return None
    return nn.GroupNorm(arguments["num_groups"], weight.shape[0], eps=arguments["eps"], device="meta")


_TENSORS = ("weight", "bias", "running_mean", "running_var")
_BUILDERS: dict[str, Callable[[Arguments, int], nn.Module | None]] = {
    "conv2d": _conv,
    "convolution": _any_conv,
    "_convolution": _any_conv,
    "conv_transpose2d": _conv_transpose,
    "linear": _linear,
    "batch_norm": _batch_norm,
    "layer_norm": _layer_norm,
    "group_norm": _group_norm,
}
