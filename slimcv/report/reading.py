"""What a finished command left on disk, read back: a run's or a ladder's folder, or any command's JSON."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ValidationError

from slimcv import predictions
from slimcv.errors import SlimcvError
from slimcv.report import shapes
from slimcv.report.schema import Report

Kind = Literal["run", "ladder", "bench", "profile", "training", "difference"]

_MODELS = (".pt", ".pth", ".pt2", ".safetensors", ".onnx")
_FILES = ("report.json", "ladder.json")
_AGAIN = "run the command again with this version of slimcv"

_TOLD_BY: Mapping[Kind, Callable[[dict[str, Any]], bool]] = {
    "run": lambda found: {"ratios", "steps", "artifacts"} <= found.keys(),
    "ladder": lambda found: {"rows", "epochs", "train_threads"} <= found.keys(),
    "bench": lambda found: {"rows", "mode"} <= found.keys(),
    "profile": lambda found: {"layers", "totals", "by_kind"} <= found.keys(),
    "training": lambda found: {"model", "training"} <= found.keys(),
    "difference": lambda found: {"models", "totals", "layers"} <= found.keys(),
}
"""By what keys the JSON of each command is told from the others."""


_SHAPES: Mapping[Kind, type[BaseModel]] = {
    "run": Report,
    "ladder": shapes.Ladder,
    "bench": shapes.Comparison,
    "profile": shapes.Profile,
    "training": shapes.Training,
    "difference": shapes.Difference,
}


@dataclass(frozen=True)
class Finished:
    """A result: what made it, where it is, its JSON, and what was said to each picture if known."""

    kind: Kind
    folder: Path
    document: dict[str, Any]
    predictions: dict[str, Any] | None = None

    @property
    def name(self) -> str:
        """What to call it: the model's name, else that of its file."""
        model = self.document.get("model") or {}
        named = model.get("name") or model.get("source")
        path = Path(str(named))
        return (path.stem if path.suffix in _MODELS else path.name) if named else self.folder.name


def read(path: Path) -> Finished:
    """The result in a folder that `optimize` or `ladder` wrote, or in a file of `--format json`.

    Raises SlimcvError where there is none, or none that can be read.
    """
    file = next((path / name for name in _FILES if (path / name).is_file()), None) if path.is_dir() else path
    if file is None:
        raise SlimcvError(
            f"{path}: there is no report",
            "give a folder of a finished slimcv optimize or slimcv ladder; "
            "an interrupted one goes on with the same command",
        )
    try:
        document = json.loads(file.read_text("utf-8"))
    except OSError as error:
        raise SlimcvError(f"{path}: {error.strerror}", "give the folder of a run") from error
    except ValueError as error:
        raise SlimcvError(f"{file}: not JSON ({error})", "give the folder of a run") from error
    return of(document, file.parent, source=str(file), said=predictions.read(file.parent))


def of(
    document: Any, folder: Path, *, source: str = "the report", said: dict[str, Any] | None = None
) -> Finished:
    """A result that a command has just made, from its JSON. Raises SlimcvError where it is none."""
    kind = _kind(document)
    if kind is None:
        raise SlimcvError(
            f"{source}: not a report of slimcv",
            "give the folder of a run, or what slimcv bench or profile printed with --format json",
        )
    try:
        _SHAPES[kind].model_validate_json(json.dumps(document))
    except ValidationError as error:
        where = ".".join(map(str, error.errors()[0]["loc"]))
        raise SlimcvError(
            f"{source}: {where}: {error.errors()[0]['msg']}; another version of slimcv wrote it", _AGAIN
        ) from error
    return Finished(kind, folder, document, said if kind == "run" and _fits(said) else None)


def _kind(document: Any) -> Kind | None:
    if not isinstance(document, dict):
        return None
    return next((kind for kind, told in _TOLD_BY.items() if told(document)), None)


def _fits(said: dict[str, Any] | None) -> bool:
    """Whether the four lists belong together and name classes that there are."""
    if said is None:
        return False
    lists = [said.get(key) for key in ("pictures", "labels", "original", "optimized")]
    if not all(isinstance(one, list) for one in (*lists, said.get("classes"), said.get("examples"))):
        return False
    counts = {len(one) for one in lists if one is not None}
    classes = len(said["classes"])
    answers = [answer for key in ("labels", "original", "optimized") for answer in said[key]]
    return len(counts) == 1 and all(isinstance(one, int) and 0 <= one < classes for one in answers)
