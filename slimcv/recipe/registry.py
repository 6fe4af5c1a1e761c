"""The steps there are: the files of slimcv/steps, and those of others."""

from __future__ import annotations

import ast
import importlib
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from slimcv.step import Step

_STEPS_FOLDER = Path(__file__).parents[1] / "steps"


def step_names() -> list[str]:
    """Names a recipe may use: the files of slimcv/steps and the entry points of the group `slimcv.steps`."""
    files = [path.stem for path in _STEPS_FOLDER.glob("*.py") if path.stem != "__init__"]
    return sorted({*files, *(point.name for point in entry_points(group="slimcv.steps"))})


def step_summary(name: str) -> str:
    """The first line of a step's docstring, read without importing where it is a file of slimcv/steps."""
    path = _STEPS_FOLDER / f"{name}.py"
    text = (
        ast.get_docstring(ast.parse(path.read_text("utf-8"))) if path.is_file() else step_class(name).__doc__
    )
    return next(iter((text or "").strip().splitlines()), "")


def step_class(name: str) -> type[Step]:
    """The class behind a step's name. The caller has checked the name against `step_names`."""
    for point in entry_points(group="slimcv.steps"):
        if point.name == name:
            loaded: type[Step] = point.load()
            return loaded
    module = importlib.import_module(f"slimcv.steps.{name}")
    found: type[Step] = getattr(module, "".join(word.capitalize() for word in name.split("_")))
    return found
