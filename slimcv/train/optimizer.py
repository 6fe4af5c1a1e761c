"""AdamW for fine-tuning, and its moments brought back from disk."""

from __future__ import annotations

import torch
from torch import Tensor

from slimcv.train.state import State


def by_name(model: torch.nn.Module) -> dict[str, torch.nn.Parameter]:
    """The parameters in the order of their names, those with several under the first one.

    The order of modules says nothing: surgery puts new ones elsewhere than where a checkpoint has them. What
    is kept or added up by position has to be the same after both.
    """
    found: dict[int, tuple[str, torch.nn.Parameter]] = {}
    for name, parameter in sorted(model.named_parameters(remove_duplicate=False), key=lambda item: item[0]):
        found.setdefault(id(parameter), (name, parameter))
    return dict(found.values())


def adamw(
    parameters: list[torch.nn.Parameter], rate: float, decay: float, *, fused: bool = True
) -> torch.optim.AdamW:
    """AdamW (Loshchilov and Hutter 2019) that decays matrices and kernels, but no biases and norms.

    `fused` changes all parameters in one call of compiled code, else each takes several operators of its own:
    the same weights, up to rounding.
    """
    groups = [
        {"params": [parameter for parameter in parameters if parameter.ndim > 1], "weight_decay": decay},
        {"params": [parameter for parameter in parameters if parameter.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW([group for group in groups if group["params"]], lr=rate, fused=fused)


def moments(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The running moments and step counts of every parameter, named `optimizer/<position>/<name>`."""
    return {
        f"optimizer/{index}/{name}": value
        for index, values in optimizer.state_dict()["state"].items()
        for name, value in values.items()
    }


def load_moments(optimizer: torch.optim.Optimizer, state: State) -> None:
    """Put the moments back, each in the memory layout of its parameter, as fused AdamW needs them."""
    plain = optimizer.state_dict()
    order = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    plain["state"] = {}
    for index, parameter in enumerate(order):
        found = state.part(f"optimizer/{index}")
        if found:
            plain["state"][index] = {
                name: torch.empty_like(parameter).detach().copy_(value) if value.ndim else value
                for name, value in found.items()
            }
    optimizer.load_state_dict(plain)
