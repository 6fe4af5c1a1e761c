"""One scale for weights that share their values: with a scale for each channel one value becomes several."""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch import Tensor, fx

from slimcv.surgery.sharing import is_few


def shares_values(weight: Tensor) -> bool:
    """Whether channels (the first axis) have values in common, of which there are few in all.

    Where each channel has few values of its own, a scale for each leaves equal ones equal.
    """
    if not is_few(weight.detach().reshape(-1)):
        return False
    rows = [torch.unique(row) for row in weight.detach().flatten(1)]
    found = torch.cat([row[row != 0] for row in rows])
    return len(torch.unique(found)) < len(found)


def scale_alike(prepared: fx.GraphModule) -> None:
    """Let the observers of such weights, which have seen them, tell one range for all channels."""
    for node in prepared.graph.nodes:
        observer: Any = prepared.get_submodule(str(node.target)) if node.op == "call_module" else None
        if getattr(observer, "dtype", None) is not torch.int8 or node.args[0].op != "get_attr":
            continue
        weight = operator.attrgetter(str(node.args[0].target))(prepared)
        if shares_values(weight):
            observer.min_val.fill_(observer.min_val.min())
            observer.max_val.fill_(observer.max_val.max())
