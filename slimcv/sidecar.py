"""slimcv.yaml beside a model: what a pipeline need not say on the command line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from slimcv.errors import SlimcvError, nearest

FILE_NAME = "slimcv.yaml"


class Sidecar(BaseModel):
    """Values for options left out.

    Nothing here can name code: a folder may come from anywhere, like the model in it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    data: str | None = None
    input: str | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    classes: tuple[str, ...] | None = None


def find(model: str) -> Sidecar:
    """The sidecar beside `model`, else the one in the working directory, else an empty one.

    `data` is a folder, relative to the sidecar. Raises SlimcvError naming file and key.
    """
    for folder in (Path(model).parent, Path.cwd()):
        path = folder / FILE_NAME
        if path.is_file():
            return _read(path)
    return Sidecar()


def _read(path: Path) -> Sidecar:
    import yaml

    try:
        values: Any = yaml.safe_load(path.read_text("utf-8")) or {}
    except OSError as error:
        raise SlimcvError(
            f"{path}: cannot be read: {error.strerror}", "check the file's permissions"
        ) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
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
    if not folder.is_dir():
        raise SlimcvError(
            f"{path}: data: '{sidecar.data}' is not a folder",
            "a factory can only be given as --data module:factory",
        )
    return sidecar.model_copy(update={"data": str(folder)})
