"""An unfinished training on disk: all that going on needs, in one safetensors file, without a pickle."""

from __future__ import annotations

import contextlib
import json
import logging
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from slimcv.errors import SlimcvError
from slimcv.train.progress import Remarks
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
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    with complete(folder / FILE) as partial:
        try:
            save_file(_own(state.tensors), partial, metadata={"values": json.dumps(state.values)})
        except SafetensorError as error:
            raise OSError(str(error)) from error


def packed(state: State) -> bytes:
    """A state as bytes, for another process."""
    from safetensors.torch import save

    return save(_own(state.tensors), metadata={"values": json.dumps(state.values)})


def unpacked(content: bytes) -> State:
    """The state in such bytes."""
    from safetensors.torch import load

    # A file begins with the length of its header, 8 bytes, and the header (safetensors' format).
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    return State(load(content), json.loads(header["__metadata__"]["values"]))


def _own(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors as the format wants them: contiguous, and no two in the same memory. Copies few."""
    own: dict[str, Tensor] = {}
    taken: set[int] = set()
    for name, value in tensors.items():
        whole = value.detach().contiguous()
        if whole.untyped_storage().nbytes() != whole.nbytes or whole.data_ptr() in taken:
            whole = whole.clone()
        taken.add(whole.data_ptr())
        own[name] = whole
    return own


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


def tidy(folder: Path) -> None:
    """Remove what a training that was killed while it wrote its state left half-written."""
    with contextlib.suppress(OSError):
        for path in folder.iterdir():
            if path.name != FILE:
                path.unlink()


class Keeper:
    """Writes a training's state at intervals. A disk that is full costs the state, not the training."""

    def __init__(self, folder: Path, interval: float, remarks: Remarks) -> None:
        self._folder, self._interval, self._remarks = folder, interval, remarks
        self._written = time.perf_counter()

    @property
    def due(self) -> bool:
        """The interval is over."""
        return time.perf_counter() - self._written >= self._interval

    def write(self, state: State) -> None:
        """Write now. Where that fails it is said once, and tried again after the next interval."""
        try:
            write(self._folder, state)
        except SlimcvError as error:
            self._remarks.add(
                f"the training goes on, but an interruption would cost what was not written: {error.message}"
            )
        self._written = time.perf_counter()
