"""A command's result as one HTML page: where `--html` says, else in the user's cache."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from slimcv.cli.live import say
from slimcv.errors import SlimcvError

log = logging.getLogger("slimcv")


def write_html(path: Path | None, document: dict[str, Any], *, command: str) -> None:
    """Write a command's JSON as a page.

    Without a path it is `reports/<command>.html` in the user's cache, and a cache that cannot be written is
    no more than a warning. Raises SlimcvError where a file was named.
    """
    from slimcv.data.folder import default_folder
    from slimcv.report.html import render_html
    from slimcv.report.reading import of
    from slimcv.writing import write_text

    target = path or default_folder() / "reports" / f"{command}.html"
    try:
        if path is None:
            target.parent.mkdir(parents=True, exist_ok=True)
        write_text(target, render_html([of(document, target.parent)]))
    except OSError as error:
        told = f"{target}: {error.strerror or error}"
        if path is not None:
            raise SlimcvError(f"--html {told}", "name another file") from error
        log.warning("no page was written: %s", told)
        return
    say(f"written to {target}")
