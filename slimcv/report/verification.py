"""A verification drawn: each check with what was found."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from slimcv.quoting import cell, one_line
from slimcv.report import as_json, check_format
from slimcv.report.markdown import grid
from slimcv.report.terminal import draw, table

_HEADINGS = ("check", "outcome", "found")
_STYLES = {"passed": "green", "failed": "red", "noted": "dim"}


def render_verification(found: Mapping[str, Any], format: str, *, colour: bool = False) -> str:
    """A `Verification.as_json()` as text, JSON or Markdown. Raises SlimcvError on an unknown format."""
    check_format(format)
    if format == "json":
        return as_json(found)
    lines = [(check["name"], check["outcome"], check["detail"]) for check in found["checks"]]
    if format == "markdown":
        title = f"# {cell(found['bundle'])}"
        return "\n\n".join([title, f"**{cell(verdict(found))}**", grid(_HEADINGS, lines, left=3)]) + "\n"

    from rich.text import Text

    cells = [
        (one_line(name), Text(outcome, style=_STYLES[outcome]), one_line(detail))
        for name, outcome, detail in lines
    ]
    drawn = table(_HEADINGS, cells, names=(), words={0, 2})
    style = "green" if found["passed"] else "red"
    return draw([Text(f"{one_line(found['bundle'])}: {verdict(found)}", style=style), drawn], colour=colour)


def verdict(found: Mapping[str, Any]) -> str:
    """The outcome in a few words."""
    failed = [check["name"] for check in found["checks"] if check["outcome"] == "failed"]
    if found["damaged"]:
        return f"damaged ({', '.join(failed)})"
    return f"failed ({', '.join(failed)})" if failed else "verified on this machine"
