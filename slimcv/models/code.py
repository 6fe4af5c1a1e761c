"""The user's own code: importing what `--code` and `--arch` name, and finding classes in it."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

from slimcv.errors import SlimcvError
from slimcv.models.capture import FAULTS


def load(name: str) -> ModuleType:
    """The module `name`: a path ending in `.py` (from the working directory) or an importable module's name.

    The code may import its neighbours. Raises SlimcvError where it is missing or fails while being imported.
    """
    path = Path(name)
    is_file = name.endswith(".py")
    if is_file and not path.is_file():
        raise SlimcvError(
            f"there is no code at {name}", "give the .py file that defines the network, or a module's name"
        )
    folder = path.resolve().parent if is_file else Path.cwd()
    try:
        with _importable(folder):
            return _from_file(path.resolve()) if is_file else importlib.import_module(name)
    except (*FAULTS, OSError, SyntaxError, SystemExit) as error:
        raise SlimcvError(
            f"the code {name} cannot be imported: {type(error).__name__}: {error}",
            "it must be importable without side effects; keep training under `if __name__ == '__main__':`",
        ) from error


def find(codes: tuple[ModuleType, ...], *, module: str, name: str) -> object | None:
    """What `module.name` of a pickle means in the user's code, or in neighbours that it imported; else None.

    Classes of a script that was run directly are pickled as `__main__.Name`, and a package may have moved
    since: where the module's name says nothing, the file that defines a class of that name is taken.
    """
    for code in _with_neighbours(codes, module=module):
        found = getattr(code, name, None)
        if found is not None and getattr(found, "__module__", None) == code.__name__:
            return found  # type: ignore[no-any-return]
    return None


def _with_neighbours(codes: tuple[ModuleType, ...], *, module: str) -> Iterator[ModuleType]:
    named = sys.modules.get(module)
    folders = tuple(_folder(code) for code in codes)
    if named is not None and _folder(named) is not None and any(_inside(named, folder) for folder in folders):
        yield named
    yield from codes


def _folder(code: ModuleType) -> Path | None:
    """Where a module's code lies; None for a module without a file, which is none of the user's."""
    file = getattr(code, "__file__", None)
    return None if file is None else Path(file).resolve().parent


def _inside(code: ModuleType, folder: Path | None) -> bool:
    own = _folder(code)
    return folder is not None and own is not None and own.is_relative_to(folder)


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
