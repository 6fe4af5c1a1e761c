"""What a run or a profile says: terminal text, strict JSON and Markdown, all made from plain data."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from slimcv.errors import SlimcvError, nearest
from slimcv.report.document import build, ratios, step_entry
from slimcv.report.layers import render_profile_markdown, render_profile_text
from slimcv.report.markdown import render_markdown
from slimcv.report.text import render_text, step_header, step_line, wants_colour

__all__ = [
    "FORMATS",
    "build",
    "ratios",
    "render",
    "render_profile",
    "step_entry",
    "step_header",
    "step_line",
    "wants_colour",
]

FORMATS = ("text", "json", "markdown")


def render(report: Mapping[str, Any], format: str, *, colour: bool = False, steps: bool = True) -> str:
    """A report made by `build` as text, JSON or Markdown, ending in a line break.

    `steps=False` leaves the rows of the steps out of the text, for whom they were shown as they happened.
    Raises SlimcvError on an unknown format.
    """
    check_format(format)
    if format == "json":
        return as_json(report)
    return (
        render_markdown(report) if format == "markdown" else render_text(report, colour=colour, steps=steps)
    )


def render_profile(profile: Mapping[str, Any], format: str, *, colour: bool = False) -> str:
    """A profile (`Profile.as_json()`) as text, JSON or Markdown. Raises SlimcvError on an unknown format."""
    check_format(format)
    if format == "json":
        return as_json(profile)
    return (
        render_profile_markdown(profile)
        if format == "markdown"
        else render_profile_text(profile, colour=colour)
    )


def check_format(format: str) -> None:
    """Refuse a format nobody knows, before work starts."""
    if format not in FORMATS:
        raise SlimcvError(f"unknown format '{format}'", nearest(format, FORMATS))


def as_json(values: Mapping[str, Any]) -> str:
    """Indented strict JSON (NaN and infinities are refused), ending in a line break."""
    return json.dumps(values, indent=2, allow_nan=False, ensure_ascii=False) + "\n"
