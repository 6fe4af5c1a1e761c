"""What `--html` does: a command's result as one page."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from slimcv.cli.live import say
from slimcv.errors import SlimcvError


def write_html(path: Path | None, document: dict[str, Any]) -> None:
    """Write a command's JSON as a page, where a file is named for it. Raises SlimcvError."""
    if path is None:
        return
    from slimcv.report.html import render_html
    from slimcv.report.reading import of
    from slimcv.writing import write_text

    try:
        write_text(path, render_html([of(document, path.parent)]))
    except OSError as error:
        raise SlimcvError(f"--html {path}: {error.strerror or error}", "name another file") from error
    say(f"written to {path}")
