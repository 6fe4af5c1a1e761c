"""The classifier's head: finding flatten → dense, and putting global average pooling in its place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.fx import GraphModule, Node

from slimcv.errors import NotApplicable
from slimcv.surgery.graph import (
    ACTIVATIONS,
    COPIES,
    PERMUTATIONS,
    RESHAPES,
    Shapes,
    aten,
    called,
    called_once,
    erase_unused,
    is_dropout,
    is_elementwise,
    replace_module,
    source,
    tidy,
)
from slimcv.surgery.norms import affine_of
from slimcv.surgery.sweep import Sweep

ACTIVATION_GAIN = 0.5
"""Slope taken for every activation where a head is linearised: that of ReLU on a symmetric input."""


@dataclass(frozen=True)
class Head:
    """A dense layer that reads a whole map `(n, C, H, W)`, and the nodes between the two."""

    map: Node
    entrance: Node
    dense: Node
    channels: int
    positions: int


def find_head(model: GraphModule, shapes: Shapes) -> Head:
    """The first linear that reads a flattened map, or convolution whose one window is the whole map.

    Raises NotApplicable, with the reason, where no layer reads more than one position's worth of a map.
    """
    for node in model.graph.nodes:
        layer = called(model, node)
        if isinstance(layer, nn.Conv2d) and _covers_map(node, layer=layer, shapes=shapes):
            height, width = layer.kernel_size
            return Head(_unpooled(node.args[0]), node, node, layer.in_channels, height * width)
        if isinstance(layer, nn.Linear) and len(shapes[node.name]) == 2:
            head = _flattened(model, node, shapes=shapes)
            if head is not None:
                if not called_once(model, node):
                    raise NotApplicable(f"the dense layer '{node.target}' is used more than once")
                return head
    raise NotApplicable("no dense layer reads a flattened map")


def _covers_map(node: Node, *, layer: nn.Conv2d, shapes: Shapes) -> bool:
    _, _, height, width = shapes[node.all_input_nodes[0].name]
    whole = layer.kernel_size == (height, width) and height * width > 1 and layer.groups == 1
    return whole and not any(layer._reversed_padding_repeated_twice) and shapes[node.name][2:] == (1, 1)


def _flattened(model: GraphModule, dense: Node, *, shapes: Shapes) -> Head | None:
    """What lies between a map and a linear: one flatten, elementwise operations, pooling to a fixed size."""
    node = source(dense)
    while node is not None and is_elementwise(model, node):
        node = source(node)
    if node is None or node.target not in RESHAPES:
        return None
    flatten, given = node, source(node)
    if given is None or len(shapes[given.name]) != 4:
        return None
    _, channels, height, width = shapes[given.name]
    if height * width == 1 or shapes[flatten.name][1] != channels * height * width:
        return None
    behind: Node | None = given
    while behind is not None and is_elementwise(model, behind):
        behind = source(behind)
    if behind is not None and behind.target in PERMUTATIONS:
        raise NotApplicable(f"the map is permuted ('{behind.name}') before it is flattened")
    if len(flatten.users) != 1:
        raise NotApplicable("the flattened map feeds more than one layer")
    return Head(_unpooled(given), flatten, dense, channels, height * width)


def _unpooled(node: object) -> Node:
    """The map before a pooling to a fixed size, which global pooling makes needless."""
    assert isinstance(node, Node)
    before = source(node)
    return before if node.target == aten.adaptive_avg_pool2d.default and before is not None else node


def pool_globally(model: GraphModule, head: Head) -> Node:
    """Put global average pooling before the dense layer, whose weights are summed over the positions.

    Exact where the map is constant over its positions. Returns the node that gives the pooled features:
    `(n, C)` before a linear, `(n, C, 1, 1)` before a convolution.
    """
    layer = called(model, head.dense)
    if isinstance(layer, nn.Linear):
        weight = layer.weight.detach().reshape(-1, head.channels, head.positions).sum(2)
        carried: nn.Module = nn.Linear(head.channels, layer.out_features, bias=layer.bias is not None)
    elif isinstance(layer, nn.Conv2d):
        weight = layer.weight.detach().sum((2, 3), keepdim=True)
        carried = nn.Conv2d(head.channels, layer.out_channels, 1, bias=layer.bias is not None)
    else:
        raise TypeError(f"'{head.dense.target}' is neither a linear nor a convolution")
    carried.weight = nn.Parameter(weight)
    if layer.bias is not None:
        carried.bias = nn.Parameter(layer.bias.detach().clone())
    replace_module(model, head.dense, carried)
    with model.graph.inserting_before(head.entrance):
        pooled = model.graph.call_function(aten.adaptive_avg_pool2d.default, (head.map, [1, 1]))
        if head.entrance is head.dense:
            given = head.dense.all_input_nodes[0]
            head.dense.replace_input_with(given, pooled)
            erase_unused(model, given)
        else:
            pooled = model.graph.call_function(torch.flatten, (pooled, 1))
            head.entrance.replace_all_uses_with(pooled)
            erase_unused(model, head.entrance)
    tidy(model)
    return pooled


def chain_to_output(pooled: Node) -> list[Node]:
    """The nodes after `pooled` up to the logits, in order.

    Raises NotApplicable where the head branches or takes anything but the pooled features.
    """
    chain: list[Node] = []
    node = pooled
    while True:
        users = list(node.users)
        if len(users) != 1 or users[0].all_input_nodes != [node]:
            raise NotApplicable(f"the head branches at '{node.name}'", "use head: keep")
        if users[0].op == "output":
            return chain
        node = users[0]
        chain.append(node)


def linearised(model: GraphModule, chain: Sequence[Node], *, channels: int) -> tuple[Tensor, Tensor]:
    """Weight `(K, C)` and bias `(K,)` of the head as one affine map, activations replaced by ACTIVATION_GAIN.

    Raises NotApplicable at an operation it does not know.
    """
    weight, bias = torch.eye(channels, dtype=torch.float64), torch.zeros(channels, dtype=torch.float64)
    for node in chain:
        layer = called(model, node)
        if isinstance(layer, nn.Linear | nn.Conv2d):
            matrix = layer.weight.detach().double().flatten(1)
            if matrix.shape[1] != weight.shape[0]:
                raise NotApplicable(f"'{node.target}' in the head is no plain dense layer", "use head: keep")
            weight, bias = matrix @ weight, matrix @ bias
            if layer.bias is not None:
                bias = bias + layer.bias.detach().double()
        elif isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d) and (affine := affine_of(layer)) is not None:
            weight, bias = weight * affine.scale[:, None], bias * affine.scale + affine.shift
        elif node.target in ACTIVATIONS:
            weight, bias = weight * ACTIVATION_GAIN, bias * ACTIVATION_GAIN
        elif not (is_dropout(model, node) or node.target in RESHAPES | COPIES or _is_global_pool(node)):
            raise NotApplicable(f"'{node.name}' in the head cannot be made linear", "use head: keep")
    return weight, bias


def _is_global_pool(node: Node) -> bool:
    return node.target in (aten.adaptive_avg_pool2d.default, aten.mean.dim)


def collapse(model: GraphModule, pooled: Node, *, weight: Tensor, bias: Tensor) -> None:
    """Put one linear `(K, C)`, after the head's last dropout if any, in place of all after `pooled`."""
    chain = chain_to_output(pooled)
    dropouts = [node for node in chain if is_dropout(model, node) and node.op == "call_module"]
    dense = [node for node in chain if isinstance(called(model, node), nn.Linear | nn.Conv2d)]
    linear = nn.Linear(weight.shape[1], weight.shape[0])
    linear.weight, linear.bias = nn.Parameter(weight.float()), nn.Parameter(bias.float())
    replace_module(model, dense[-1], linear)
    with model.graph.inserting_after(pooled):
        last = features = pooled
        if pooled.target is not torch.flatten:
            last = features = model.graph.call_function(torch.flatten, (pooled, 1))
    if dropouts:
        with model.graph.inserting_after(last):
            last = model.graph.call_module(str(dropouts[-1].target), (features,))
    with model.graph.inserting_after(last):
        logits = model.graph.call_module(str(dense[-1].target), (last,))
    model.graph.output_node().replace_input_with(chain[-1], logits)
    erase_unused(model, chain[-1])
    tidy(model)


def observe(model: GraphModule, node: Node, batches: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """The means `(n, C)` of a map over its positions, and the logits `(n, K)`, of all batches together."""
    features, logits = [], []
    for batch in batches:
        sweep = Sweep(model, [batch])
        features.append(sweep.outputs_of(node)[0].mean((2, 3)))
        logits.append(sweep.outputs_of(model.graph.output_node())[0])
    return torch.cat(features), torch.cat(logits)
