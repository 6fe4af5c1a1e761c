"""slimcv.yaml beside a model: what a pipeline need not say on the command line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from slimcv.errors import SlimcvError, nearest

FILE_NAME = "slimcv.yaml"


class Sidecar(BaseModel):
    """Values for options left out.

    Nothing here can name code: a folder may come from anywhere, like the model in it. `data` is a path, once
    the sidecar has been read.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    data: str | None = None
    input: str | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    classes: tuple[str, ...] | None = None

    def folder(self) -> str | None:
        """The folder of pictures, None where none is named. Raises SlimcvError where it is no folder."""
        if self.data is not None and not Path(self.data).is_dir():
            raise SlimcvError(
                f"{FILE_NAME}: data: '{self.data}' is not a folder",
                f"the path is relative to {FILE_NAME}; correct it there, or give --data",
            )
        return self.data


def find(model: str) -> Sidecar:
    """The sidecar beside `model`, else the one in the working directory, else an empty one.

    `data` is relative to the sidecar; a missing folder is no fault before it is used (`Sidecar.folder`).
    Raises SlimcvError naming file and key.
    """
    for folder in (Path(model).parent, Path.cwd()):
        text = _text(folder / FILE_NAME)
        if text is not None:
            return _parsed(text, folder / FILE_NAME)
    return Sidecar()


def _text(path: Path) -> bytes | None:
    try:
        return path.read_bytes() if path.is_file() else None
    except OSError as error:
        raise SlimcvError(
            f"{path}: cannot be read: {error.strerror}", "check the permissions of the file and its folder"
        ) from error


def _parsed(text: bytes, path: Path) -> Sidecar:
    import yaml

    try:
        values: Any = yaml.safe_load(text.decode("utf-8")) or {}
    except (yaml.YAMLError, ValueError) as error:
        raise SlimcvError(f"{path}: not YAML", "keys: " + ", ".join(Sidecar.model_fields)) from error
    if not isinstance(values, dict):
        raise SlimcvError(f"{path}: expected `key: value` lines", "keys: " + ", ".join(Sidecar.model_fields))
    try:
        sidecar = Sidecar.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        key = str(first["loc"][0])
        if first["type"] == "extra_forbidden":
            raise SlimcvError(f"{path}: unknown key '{key}'", nearest(key, Sidecar.model_fields)) from error
        raise SlimcvError(f"{path}: {key}: {first['msg'].lower()}", "see README.md, slimcv.yaml") from error
    if sidecar.data is None:
        return sidecar
    folder = path.parent / sidecar.data
    if ":" in sidecar.data and not folder.is_dir():
        raise SlimcvError(
            f"{path}: data: '{sidecar.data}' is not a folder",
            "a factory can only be given as --data module:factory",
        )
    return sidecar.model_copy(update={"data": str(folder)})
