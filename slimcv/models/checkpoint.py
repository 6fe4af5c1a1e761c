"""Variants on disk: a `.pt2` file of torch.export with what slimcv knows about the model beside the graph."""

from __future__ import annotations

import io
import json
import warnings
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any, cast

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch.export import ExportedProgram

from slimcv.errors import SlimcvError
from slimcv.manifest import LARGEST_SIDE
from slimcv.models import exported as exported_files
from slimcv.models.capture import exported, lift, quiet
from slimcv.step import InputSpec, Variant
from slimcv.writing import complete

SIDECAR = "slimcv.json"
"""The file inside the archive that holds everything but the graph."""


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True)


class _Input(_Part):
    channels: int = Field(ge=1, le=LARGEST_SIDE)
    height: int = Field(ge=1, le=LARGEST_SIDE)
    width: int = Field(ge=1, le=LARGEST_SIDE)
    mean: tuple[float, ...]
    std: tuple[float, ...]


class Sidecar(_Part):
    """What slimcv writes beside the graph, as far as it is read again."""

    input: _Input
    classes: tuple[str, ...] | None
    precision: str
    runtime: str
    int8_mac_share: float | None
    details: dict[str, Any]

    @property
    def spec(self) -> InputSpec:
        """What the model is fed."""
        return InputSpec(**self.input.model_dump())


def save(variant: Variant, path: Path) -> None:
    """Writes `variant` to `path`, whole or not at all; `artifacts` are not part of it.

    Raises SlimcvError where it cannot be written (disk full, no permission); a file that stood there stays.
    """
    sidecar = {
        "schema_version": 1,
        "input": asdict(variant.input),
        "classes": variant.classes,
        "precision": variant.precision,
        "runtime": variant.runtime,
        "int8_mac_share": variant.int8_mac_share,
        "details": variant.details,
    }
    program = exported(variant.model, variant.input)
    program._example_inputs = None
    write_atomically(path, lambda file: _save_program(program, file, json.dumps(sidecar)))


def write_atomically(path: Path, write: Callable[[IO[bytes]], None]) -> None:
    """Lets `write` fill a file that takes the place of `path` once it is complete and on the disk.

    Raises SlimcvError where it cannot be written (disk full, no permission); a file that stood there stays.
    """
    try:
        with complete(path, buffering=0) as file:
            sink = _Sink(file)
            write(cast(IO[bytes], sink))
            if sink.error is not None:
                raise sink.error
    except OSError as error:
        raise SlimcvError(
            f"cannot write {path}: {error.strerror}", "make room or choose another place to write to"
        ) from error


class _Sink(io.RawIOBase):
    """A file that keeps its first error: torch's archive writer ends the process at a failed write."""

    def __init__(self, file: IO[bytes]) -> None:
        super().__init__()
        self._file = file
        self.error: OSError | None = None

    def writable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return self._file.seek(offset, whence)

    def write(self, data: Any) -> int:
        rest = memoryview(data).cast("B")
        size = len(rest)
        while self.error is None and len(rest):
            try:
                rest = rest[self._file.write(rest) :]
            except OSError as error:
                self.error = error
        return size


def _save_program(program: ExportedProgram, file: IO[bytes], sidecar: str) -> None:
    with warnings.catch_warnings(), quiet():
        warnings.simplefilter("ignore")
        torch.export.save(program, file, extra_files={SIDECAR: sidecar})


def read(path: Path) -> Variant:
    """The variant `save` wrote; the input is that of the example where another program wrote the file.

    Raises SlimcvError where the file is missing, damaged, could run code, or is not a `.pt2` slimcv wrote.
    """
    program, extra = exported_files.read(path)
    if (sidecar := sidecar_of(extra)) is None:
        raise SlimcvError(
            f"{path} was not written by slimcv", "load it as a model: slimcv optimize FILE --input 3x224x224"
        )
    return Variant(
        model=lift(program),
        input=sidecar.spec,
        classes=sidecar.classes,
        precision=sidecar.precision,
        runtime=sidecar.runtime,
        int8_mac_share=sidecar.int8_mac_share,
        details=sidecar.details,
    )


def sidecar_of(extra: dict[str, str]) -> Sidecar | None:
    """What slimcv wrote beside the graph; None for a file by anyone else, SlimcvError where it is garbled."""
    if SIDECAR not in extra:
        return None
    try:
        return Sidecar.model_validate_json(extra[SIDECAR])
    except ValidationError as error:
        raise SlimcvError(
            f"the {SIDECAR} inside the file is not one slimcv wrote", "export the model again"
        ) from error
