"""A finished result in the formats of `slimcv report`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from slimcv.report import as_json, render_profile
from slimcv.report.bench import render_bench
from slimcv.report.difference import render_difference
from slimcv.report.html import render_html
from slimcv.report.html.several import titles
from slimcv.report.ladder import render_ladder
from slimcv.report.markdown import render_markdown, side_by_side
from slimcv.report.profile_training import render_training
from slimcv.report.reading import Finished
from slimcv.report.spreadsheet import render_csv

_MARKDOWN: Mapping[str, Callable[[Mapping[str, Any]], str]] = {
    "run": render_markdown,
    "ladder": lambda found: render_ladder(found, "markdown"),
    "bench": lambda found: render_bench(found, "markdown"),
    "profile": lambda found: render_profile(found, "markdown"),
    "training": lambda found: render_training(found, "markdown"),
    "difference": lambda found: render_difference(found, "markdown", colour=False),
}


def show(found: Sequence[Finished], format: str) -> str:
    """One result or several as "html", "md", "json" or "csv", ending in a line break. Raises SlimcvError."""
    if format == "html":
        return render_html(found)
    if format == "csv":
        return render_csv(found)
    if format == "json":
        documents = [one.document for one in found]
        return as_json(documents[0] if len(found) == 1 else {"schema_version": 1, "reports": documents})
    texts = [_MARKDOWN[one.kind](one.document) for one in found]
    runs = [one.document for one in found if one.kind == "run"]
    if len(runs) > 1 and len(runs) == len(found):
        texts.insert(0, side_by_side(list(zip(titles(found), runs, strict=True))))
    return "\n".join(texts)
