"""State dicts: finding them inside a training checkpoint, and loading them into an architecture."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from slimcv.errors import SlimcvError

_NESTED = (
    "state_dict", "model_state_dict", "model_state", "model", "net", "network", "module", "weights", "params",
    "ema_state_dict", "state_dict_ema", "model_ema", "ema",
)  # fmt: skip
"""Where training scripts keep the network inside a checkpoint, trained weights before their average."""

_PREFIXES = ("module.", "_orig_mod.", "model.", "net.", "network.", "backbone.")
_SHOWN = 4

StateDict = dict[str, Tensor]


def read_safetensors(path: Path) -> StateDict:
    """The tensors of a `.safetensors` file."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise SlimcvError(
            f"{path} is not a whole .safetensors file: {error}", "copy or save the file again"
        ) from error


def find(value: Any) -> nn.Module | StateDict | None:
    """The network or the state dict in what a file held, however nested; None where there is neither."""
    waiting, seen = [value], set()
    while waiting:
        value = waiting.pop()
        if id(value) in seen:
            continue
        seen.add(id(value))
        if isinstance(value, nn.parallel.DataParallel):
            waiting.append(value.module)
        elif isinstance(value, nn.Module):
            return value
        elif isinstance(value, Mapping):
            if value and all(isinstance(tensor, Tensor) for tensor in value.values()):
                return {str(name): tensor for name, tensor in value.items()}
            waiting.extend(value[key] for key in reversed(_NESTED) if key in value)
    return None


def load_into(network: nn.Module, state: StateDict, *, source: str) -> nn.Module:
    """`network` with the tensors of `state`, in float32.

    Prefixes left by DataParallel, torch.compile or a trainer are dropped where the architecture has no such
    name. Batch counters may be missing. Raises SlimcvError naming what is missing, unexpected or misshapen.
    """
    wanted = network.state_dict()
    state = {name: value.float() if value.is_floating_point() else value for name, value in state.items()}
    state = _without_prefixes(state, wanted)
    missing = [name for name in wanted if name not in state and not name.endswith("num_batches_tracked")]
    unexpected = [name for name in state if name not in wanted]
    shapes = [name for name in wanted if name in state and wanted[name].shape != state[name].shape]
    if missing or unexpected or shapes:
        differences = _differences(missing, unexpected, shapes, state=state, wanted=wanted)
        raise SlimcvError(
            f"{source} does not fit the architecture: {differences}",
            _hint(missing, unexpected, shapes, state=state, wanted=wanted),
        )
    network.float().load_state_dict(state, strict=False)
    return network


def _without_prefixes(state: StateDict, wanted: Mapping[str, Tensor]) -> StateDict:
    if "n_averaged" not in wanted:
        state = {name: value for name, value in state.items() if name != "n_averaged"}
    for _ in range(len(_PREFIXES)):
        for prefix in _PREFIXES:
            known = any(name.startswith(prefix) for name in wanted)
            if state and not known and all(name.startswith(prefix) for name in state):
                state = {name.removeprefix(prefix): value for name, value in state.items()}
    return state


def _listed(names: list[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")


def _differences(
    missing: list[str],
    unexpected: list[str],
    shapes: list[str],
    *,
    state: StateDict,
    wanted: Mapping[str, Tensor],
) -> str:
    parts = []
    if missing:
        parts.append(f"{len(missing)} missing ({_listed(missing)})")
    if unexpected:
        parts.append(f"{len(unexpected)} unexpected ({_listed(unexpected)})")
    if shapes:
        described = [f"{n} is {tuple(state[n].shape)} instead of {tuple(wanted[n].shape)}" for n in shapes]
        parts.append(f"{len(shapes)} of another shape ({_listed(described)})")
    return "; ".join(parts)


def _hint(
    missing: list[str],
    unexpected: list[str],
    shapes: list[str],
    *,
    state: StateDict,
    wanted: Mapping[str, Tensor],
) -> str:
    outputs = [name for name in wanted if wanted[name].ndim == 2]
    head = outputs[-1] if outputs else None
    only_head = head is not None and set(shapes) <= {head, head.removesuffix("weight") + "bias"}
    if shapes and only_head and not missing and not unexpected and head in shapes:
        classes = state[head].shape[0]
        return (
            f"the file has {classes} classes: --arch NAME?num_classes={classes}, or your factory's argument"
        )
    for name in missing:
        if near := difflib.get_close_matches(name, unexpected, n=1, cutoff=0.6):
            return f"'{near[0]}' in the file is spelled most like '{name}': check --arch and its arguments"
    return "check --arch and its ?key=value arguments: the file was saved from another architecture"


def check_tensors(state: StateDict, *, source: str) -> None:
    """Raises SlimcvError where a state dict holds quantised tensors, which no float architecture can take."""
    odd = [name for name, value in state.items() if value.is_quantized or value.dtype == torch.complex64]
    if odd:
        raise SlimcvError(
            f"{source} holds quantised tensors ({_listed(odd)})", "give the float model's weights"
        )
