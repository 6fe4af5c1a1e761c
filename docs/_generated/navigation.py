"""Sections of the site that are filled from folders, so that a new page needs no line in mkdocs.yml."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def filled(nav: list[Any], folder: Path) -> list[Any]:
    """The navigation with each `dir/*.md` replaced by the pages there that it does not name elsewhere.

    A folder's index comes first; a section without any page is left out.
    """
    return _filled(nav, folder, set(_named(nav)))


def _filled(nav: list[Any], folder: Path, named: set[str]) -> list[Any]:
    found: list[Any] = []
    for item in nav:
        if isinstance(item, str):
            found += _pages(item, folder, named) if "*" in item else [item]
        else:
            for title, inside in item.items():
                if isinstance(inside, str) and "*" not in inside:
                    found.append({title: inside})
                    continue
                pages = _filled(inside if isinstance(inside, list) else [inside], folder, named)
                found += [{title: pages}] if pages else []
    return found


def _pages(pattern: str, folder: Path, named: set[str]) -> list[str]:
    paths = sorted(folder.glob(pattern), key=lambda path: (path.stem != "index", path.stem))
    pages = [path.relative_to(folder).as_posix() for path in paths]
    return [page for page in pages if page not in named]


def _named(nav: Any) -> list[str]:
    if isinstance(nav, str):
        return [nav]
    inside = nav.values() if isinstance(nav, dict) else nav
    return [name for item in inside for name in _named(item)]
