"""Which channels of a lifted graph can only be removed together, by torch-pruning's dependency graph."""

from __future__ import annotations

import operator
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import lcm
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import GraphModule, Node

from slimcv.errors import NotApplicable
from slimcv.models import capture
from slimcv.step import InputSpec
from slimcv.surgery.graph import ACTIVATIONS, COPIES, DROPOUTS, aten

_CHANNELWISE = frozenset(
    {
        torch.flatten,
        *ACTIVATIONS,
        *COPIES,
        *DROPOUTS,
        *(aten.add.Tensor, aten.add_.Tensor, aten.sub.Tensor, aten.mul.Tensor, aten.mul_.Tensor),
        *(aten.div.Tensor, aten.clamp.default, aten.add.Scalar, aten.mul.Scalar, aten.div.Scalar),
        *(aten.max_pool2d.default, aten.avg_pool2d.default),
        *(aten.adaptive_avg_pool2d.default, aten.adaptive_max_pool2d.default),
        *(aten.upsample_nearest2d.vec, aten.upsample_bilinear2d.vec),
        *(aten.cat.default, aten.mean.dim, aten.pad.default, aten.sym_size.int),
    }
)
"""Operators whose channels are those of what they read, in the same order."""

_NORMS = nn.modules.batchnorm._BatchNorm
_KEPT = (nn.LayerNorm, nn.GroupNorm, nn.ConvTranspose2d)
"""What removing a channel would change the other channels of, and what is not cut."""


Cut = Callable[[nn.Module, Sequence[int]], nn.Module]
"""Takes channels out of one side of a layer, in place."""


@dataclass(frozen=True)
class Member:
    """A layer that loses channels with the others: its name, which side, and what of it each unit is.

    `prune` is torch-pruning's function for this side. `positions[u]` are the channels of unit u.
    """

    layer: str
    prune: Cut
    reads: bool
    writes: bool
    positions: tuple[tuple[int, ...], ...]

    @property
    def width(self) -> int:
        """Channels of the layer in one unit."""
        return len(self.positions[0])

    def of(self, units: Sequence[int]) -> list[int]:
        """The layer's channels that belong to these units."""
        return sorted(position for unit in units for position in self.positions[unit])


@dataclass(frozen=True)
class Coupled:
    """Channels that belong together: unit by unit they can be removed from all members.

    `groups` channels of the first member are one unit: grouped convolutions lose as many in every group.
    `importance` has one value a unit, larger for what matters more.
    """

    name: str
    members: tuple[Member, ...]
    groups: int
    importance: Tensor

    @property
    def units(self) -> int:
        """How many units there are."""
        return len(self.importance)


Importance = Callable[[Any], "Tensor | None"]
"""From a group of torch-pruning with all its channels to one value a channel."""


class Barrier(nn.Module):
    """A call through which channels are not followed; what it reads and gives keeps all of them."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self._function = function

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """What the function gives."""
        found = self._function(*args, **kwargs)
        return found if isinstance(found, Tensor) else tuple(found)


def coupled(model: GraphModule, input: InputSpec, importance: Importance) -> list[Coupled]:
    """Every set of coupled channels that can be cut, in order of execution (Fang et al. 2023, "DepGraph").

    Left out are channels of the outputs, those that a LayerNorm or GroupNorm takes together, and those that
    pass through a reshape, split, shuffle or product of matrices. `importance` is called on groups of a copy
    of `model` that holds the same weights and gradients. Raises NotApplicable where the graph cannot be
    followed.
    """
    import torch_pruning

    traced = capture.copy(model)
    for parameter, own in zip(traced.parameters(), model.parameters(), strict=True):
        parameter.requires_grad_(parameter.is_floating_point())
        parameter.grad = own.grad
    _raise_barriers(traced)
    names = {module: name for name, module in traced.named_modules()}
    graph = torch_pruning.DependencyGraph()
    try:
        with warnings.catch_warnings(), torch.enable_grad():
            warnings.simplefilter("ignore")
            graph.build_dependency(
                traced,
                capture.example(input),
                customized_pruners={Barrier: _barrier_pruner()},
                verbose=False,
            )
            groups = list(graph.get_all_groups())
    except (ArithmeticError, LookupError, AttributeError, ValueError, RuntimeError) as error:
        raise NotApplicable(
            f"torch-pruning cannot follow the network's channels: {capture.first_line(error)}"
        ) from error
    found = [_coupled(group, names, importance) for group in groups]
    return [one for one in found if one is not None]


def _raise_barriers(model: GraphModule) -> None:
    """Put a module in place of each call that channels cannot be followed through, in place."""
    for number, node in enumerate(list(model.graph.nodes)):
        if node.op != "call_function" or _followed(node) or not node.all_input_nodes:
            continue
        name = f"barrier_{number}"
        model.add_submodule(name, Barrier(node.target))  # type: ignore[arg-type]
        node.op, node.target = "call_module", name
    output = model.graph.output_node()
    model.add_submodule("barrier_output", Barrier(torch.clone))
    with model.graph.inserting_before(output):
        output.args = (model.graph.call_module("barrier_output", output.args),)
    model.recompile()


def _followed(node: Node) -> bool:
    if node.target is operator.getitem:
        return True
    if node.target not in _CHANNELWISE:
        return not isinstance(node.target, torch._ops.OpOverload)
    if node.target == aten.cat.default:
        return len(node.args) > 1 and bool(node.args[1] == 1)
    if node.target == aten.mean.dim:
        return isinstance(node.args[1], list | tuple) and set(node.args[1]) in ({2, 3}, {-1, -2})
    if node.target == aten.pad.default:
        return isinstance(node.args[1], list | tuple) and len(node.args[1]) <= 4
    if node.target is torch.flatten:
        return bool(tuple(node.args[1:]) == (1,))
    return True


def _barrier_pruner() -> Any:
    from torch_pruning.pruner import function

    class Kept(function.BasePruningFunc):  # type: ignore[misc]
        """Stands for a barrier in a group, which is then left out."""

        def prune_out_channels(self, layer: nn.Module, idxs: Sequence[int]) -> nn.Module:  # noqa: ARG002
            return layer

        def prune_in_channels(self, layer: nn.Module, idxs: Sequence[int]) -> nn.Module:  # noqa: ARG002
            return layer

        def get_out_channels(self, layer: nn.Module) -> None:  # noqa: ARG002
            return None

        get_in_channels = get_out_channels

    return Kept()


def _coupled(group: Any, names: dict[nn.Module, str], importance: Importance) -> Coupled | None:
    """A group of torch-pruning as units; None where it must keep its channels."""
    from torch_pruning import ops
    from torch_pruning.pruner import function

    reading = (function.prune_conv_in_channels, function.prune_linear_in_channels)
    layers = []
    for item in group:
        module = item.dep.target.module
        if isinstance(module, nn.Conv2d | nn.Linear | _NORMS | nn.PReLU):
            layers.append((module, item))
        elif isinstance(module, (Barrier, nn.Parameter, ops._OutputOp, *_KEPT)):
            return None
    channels = len(group[0].idxs)
    groups = 1
    for module, item in layers:
        if isinstance(module, nn.Conv2d) and item.dep.handler != function.prune_depthwise_conv_out_channels:
            groups = lcm(groups, module.groups)
    if channels % groups or channels == groups:
        return None
    units = channels // groups
    members = []
    for module, item in layers:
        positions: list[list[int]] = [[] for _ in range(units)]
        for position, root in zip(item.idxs, item.root_idxs, strict=True):
            if root is None:
                return None
            positions[root % units].append(position)
        if len({len(found) for found in positions}) != 1:
            return None
        reads = item.dep.handler in reading
        writes = isinstance(module, nn.Conv2d | nn.Linear) and not reads
        members.append(Member(names[module], item.dep.handler, reads, writes, tuple(map(tuple, positions))))
    values = importance(group)
    if values is None:
        return None
    per_unit = values.detach().double().reshape(groups, units).sum(0)
    return Coupled(members[0].layer, tuple(members), groups, per_unit)
