"""Finding in the user's own code, which slimcv.user_code imported, what a pickle means."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType


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
