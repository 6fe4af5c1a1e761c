"""Foreign text (class names, paths, reasons) made harmless for a terminal line and for Markdown."""

from __future__ import annotations

import re

_MARKDOWN_SPECIAL = re.compile(r"([\\`*\[\]<>|~!])")
_EDGE_UNDERSCORE = re.compile(r"(?<!\w)_|_(?!\w)")
_BACKTICKS = re.compile(r"`+")


def one_line(text: object) -> str:
    """One printable line: line breaks become spaces, control and direction characters a replacement mark."""
    words = " ".join(str(text).split())
    return "".join(character if character.isprintable() else "\ufffd" for character in words)


def cell(text: object) -> str:
    """Text for a Markdown table cell or list item, shown as it is written whatever it holds."""
    escaped = _MARKDOWN_SPECIAL.sub(r"\\\1", one_line(text).replace("&", "&amp;"))
    return _EDGE_UNDERSCORE.sub(r"\\_", escaped)


def fenced(text: str, language: str = "") -> str:
    """A code block whose fence is longer than any run of backticks in the text."""
    longest = max((len(run) for run in _BACKTICKS.findall(text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{language}\n{text.rstrip()}\n{fence}"
