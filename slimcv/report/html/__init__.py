"""report.html: one file that shows a run, a ladder, a comparison or a profile, and needs no network."""

from __future__ import annotations

from collections.abc import Sequence

from slimcv.errors import SlimcvError
from slimcv.report.html import bench, difference, ladder, profile, run, several, training_profile
from slimcv.report.html.parts import Page
from slimcv.report.html.writing import write
from slimcv.report.reading import Finished

__all__ = ["render_html"]

_PAGES = {
    "run": run.page,
    "ladder": ladder.page,
    "bench": bench.page,
    "profile": profile.page,
    "training": training_profile.page,
    "difference": difference.page,
}


def render_html(found: Sequence[Finished]) -> str:
    """The page of what was found, several runs of `optimize` side by side.

    Raises SlimcvError where several are given that cannot stand side by side.
    """
    return write(_page(found))


def _page(found: Sequence[Finished]) -> Page:
    if len(found) == 1:
        return _PAGES[found[0].kind](found[0])
    other = next((one for one in found if one.kind != "run"), None)
    if other is not None:
        raise SlimcvError(
            f"{other.folder}: only runs of slimcv optimize can stand side by side",
            "give this one on its own",
        )
    return several.page(found)
