"""The user's own code, imported because they named it: of a network, or of what makes a data set."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

from slimcv.errors import FAULTS, SlimcvError


def load(name: str) -> ModuleType:
    """The module `name`: a path ending in `.py` (from the working directory) or an importable module's name.

    The code may import its neighbours. Raises SlimcvError where it is missing or fails while being imported.
    """
    path = Path(name)
    is_file = name.endswith(".py")
    if is_file and not path.is_file():
        raise SlimcvError(f"there is no code at {name}", "give the path of a .py file, or a module's name")
    folder = path.resolve().parent if is_file else Path.cwd()
    try:
        with _importable(folder):
            return _from_file(path.resolve()) if is_file else importlib.import_module(name)
    except (*FAULTS, OSError, SyntaxError, SystemExit) as error:
        raise SlimcvError(
            f"the code {name} cannot be imported: {type(error).__name__}: {error}",
            "it must be importable without side effects; keep training under `if __name__ == '__main__':`",
        ) from error


def _from_file(path: Path) -> ModuleType:
    name = path.stem
    known = sys.modules.get(name)
    if known is not None and getattr(known, "__file__", None) == str(path):
        return known
    if known is not None:
        name = f"slimcv_code_{path.stem}"
    specification = importlib.util.spec_from_file_location(name, path)
    if specification is None or specification.loader is None:
        raise SlimcvError(f"{path} is not Python code", "give a .py file")
    module = importlib.util.module_from_spec(specification)
    sys.modules[name] = module
    try:
        specification.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


@contextmanager
def _importable(folder: Path) -> Iterator[None]:
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))
