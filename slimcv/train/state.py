"""An unfinished training on disk: all that going on needs, in one safetensors file, without a pickle."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from slimcv.train.saving import complete

FILE = "state.safetensors"

log = logging.getLogger("slimcv")


@dataclass(frozen=True)
class State:
    """Tensors by name, and the plain values beside them."""

    tensors: dict[str, Tensor]
    values: dict[str, Any]

    def part(self, prefix: str) -> dict[str, Tensor]:
        """The tensors whose names begin with `prefix` and a slash, named without it."""
        begin = f"{prefix}/"
        return {
            name.removeprefix(begin): value for name, value in self.tensors.items() if name.startswith(begin)
        }


def write(folder: Path, state: State) -> None:
    """Put the state in the place of the one before. Raises SlimcvError where the folder cannot be written."""
    from safetensors.torch import save_file

    tensors = {
        name: value.detach().clone(memory_format=torch.contiguous_format)
        for name, value in state.tensors.items()
    }
    with complete(folder / FILE) as partial:
        save_file(tensors, partial, metadata={"values": json.dumps(state.values)})


def read(folder: Path) -> State | None:
    """The state that was written last, None where there is none or it cannot be read."""
    from safetensors import SafetensorError, safe_open

    path = folder / FILE
    if not path.is_file():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            values = json.loads((file.metadata() or {})["values"])
            return State({name: file.get_tensor(name) for name in file.keys()}, values)  # noqa: SIM118
    except (SafetensorError, OSError, ValueError, KeyError) as error:
        log.warning("the unfinished training in %s cannot be read (%s): it starts again", path, error)
        return None


def remove(folder: Path) -> None:
    """The training is done: its state has no more use."""
    (folder / FILE).unlink(missing_ok=True)
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()
