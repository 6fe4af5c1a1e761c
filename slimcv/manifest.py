"""slimcv.json: what a bundle holds, how it is fed and served, and a hash of all that."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

import slimcv
from slimcv.errors import SlimcvError

MANIFEST = "slimcv.json"
AGAIN = "run slimcv optimize again, or copy the whole folder"

LARGEST_SIDE, MOST_CHANNELS = 1 << 14, 1 << 10
"""Of pictures that a model may be fed: they are held in memory before the model is asked."""

_VERSION = 1
_SHA256 = "^[0-9a-f]{64}$"
_UNSIGNED = "0" * 64
"""Stands where the hash of the manifest will stand, while that is computed."""


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class FileEntry(_Part):
    """Size and SHA-256 of one file of the bundle."""

    bytes: int = Field(ge=0)
    sha256: str = Field(pattern=_SHA256)


class Serve(_Part):
    """The file to deploy, and how it was measured to be the best choice."""

    path: str
    runtime: str
    precision: str
    threads: int = Field(ge=1)
    latency_ms: float | None = None


class Input(_Part):
    """What the served file is fed.

    `uint8-nhwc`: pixels (batch, height, width, channels), which it normalises itself. `float-nchw`: float32
    (batch, channels, height, width), normalised as `(pixel / 255 - mean) / std`.
    """

    format: Literal["uint8-nhwc", "float-nchw"] = "float-nchw"

    channels: int = Field(ge=1, le=MOST_CHANNELS)
    height: int = Field(ge=1, le=LARGEST_SIDE)
    width: int = Field(ge=1, le=LARGEST_SIDE)
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @model_validator(mode="after")
    def _one_for_each_channel(self) -> Self:
        if not len(self.mean) == len(self.std) == self.channels:
            raise ValueError(f"mean and std are not {self.channels} numbers each, one for each channel")
        return self


class GoldenSamples(_Part):
    """Where a few pictures and their expected outputs are, and how far others may differ (relative)."""

    path: str
    tolerance: float = Field(gt=0)


class Manifest(_Part):
    """slimcv.json: everything needed to serve the bundle, and to trust it.

    `sha256` is that of slimcv.json itself with 64 zeros in its place; a packed manifest has none, because the
    packed file has its own checksum.
    """

    schema_version: Literal[1]
    slimcv: str
    created: str
    serve: Serve
    input: Input
    classes: tuple[str, ...] | None
    files: dict[str, FileEntry]
    environment: dict[str, Any]
    threads: int = Field(ge=1)
    seed: int
    recipe: dict[str, Any]
    golden: GoldenSamples | None = None
    license: str | None = None
    sha256: str | None = Field(default=None, pattern=_SHA256)

    @field_validator("files")
    @classmethod
    def _stay_inside(cls, files: dict[str, FileEntry]) -> dict[str, FileEntry]:
        for name in files:
            path = PurePosixPath(name)
            if path.is_absolute() or ".." in path.parts or "\\" in name:
                raise ValueError(f"'{name}' leaves the folder")
        return files


def signed(values: Mapping[str, Any]) -> bytes:
    """The contents of slimcv.json for a manifest's values as JSON knows them, with the hash of itself."""
    text = json.dumps({**values, "sha256": _UNSIGNED}, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    before, _, after = text.rpartition(_UNSIGNED)
    return f"{before}{hashlib.sha256(text.encode(errors='replace')).hexdigest()}{after}".encode(
        errors="replace"
    )


def parsed(content: bytes, *, source: str) -> Manifest:
    """The manifest in the contents of slimcv.json, of which not a bit may have changed.

    Raises SlimcvError, in which `source` is what the file is called.
    """
    values = _object(content, source)
    _require_unchanged(content, values.get("sha256"), source)
    if values.get("schema_version") != _VERSION:
        raise _newer(values, source, f"in form {values.get('schema_version')} and not {_VERSION}")
    try:
        manifest = Manifest.model_validate_json(content)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        if first["type"] == "extra_forbidden":
            raise _newer(values, source, f"with '{where}'") from error
        raise SlimcvError(f"{source}: {where}: {first['msg']}", AGAIN) from error
    used = [manifest.serve.path, *([manifest.golden.path] if manifest.golden is not None else ())]
    unlisted = next((path for path in used if path not in manifest.files), None)
    if unlisted is not None:
        raise SlimcvError(f"{source}: it uses '{unlisted}', which is not among its files", AGAIN)
    return manifest


def _object(content: bytes, source: str) -> dict[str, Any]:
    try:
        values = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise SlimcvError(f"{source}: not JSON ({error})", AGAIN) from error
    if not isinstance(values, dict):
        raise SlimcvError(f"{source}: holds no manifest", AGAIN)
    return values


def _require_unchanged(content: bytes, sha256: object, source: str) -> None:
    changed = f"{source}: changed since the bundle was written"
    if not isinstance(sha256, str) or not re.fullmatch(_SHA256, sha256):
        raise SlimcvError(f"{changed} (its own SHA-256 is missing)", AGAIN)
    before, _, after = content.rpartition(sha256.encode())
    if hashlib.sha256(before + _UNSIGNED.encode() + after).hexdigest() != sha256:
        raise SlimcvError(f"{changed} (its own SHA-256 differs)", AGAIN)


def _newer(values: Mapping[str, Any], source: str, how: str) -> SlimcvError:
    return SlimcvError(
        f"{source}: written by slimcv {values.get('slimcv')} {how}, which slimcv {slimcv.__version__} does "
        "not read",
        "update slimcv here, or run slimcv optimize with this version",
    )
