"""A command's result as one HTML page: where `--html` says, else in the user's cache."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from slimcv.cli.live import say
from slimcv.errors import SlimcvError

log = logging.getLogger("slimcv")


_LONGEST = 60


def write_html(
    path: Path | None, document: dict[str, Any], *, command: str, about: Sequence[str] = ()
) -> None:
    """Write a command's JSON as a page.

    Without a path it is `reports/<command>.html` in the user's cache, the models it is `about` in its name,
    and a cache that cannot be written is no more than a warning. Raises SlimcvError where a file was named.
    """
    from slimcv.data.folder import default_folder
    from slimcv.report.html import render_html
    from slimcv.report.reading import of
    from slimcv.writing import write_text

    target = path or default_folder() / "reports" / f"{'-'.join((command, *map(_short, about)))}.html"
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        write_text(target, render_html([of(document, target.parent)]))
    except OSError as error:
        told = f"{target}: {error.strerror or error}"
        if path is not None:
            raise SlimcvError(f"--html {told}", "name another file") from error
        log.warning("no page was written: %s", told)
        return
    say(f"written to {target}")


def _short(model: str) -> str:
    """A model's own name, fit for a file's: models/net.pt, torchvision:net?classes=6 → net, net-classes-6."""
    name = model.rstrip("/").rpartition("/")[2].rpartition(":")[2]
    stem = re.sub(r"\.(pt|pth|pt2|safetensors|onnx|xml)$", "", name)
    return re.sub(r"[^A-Za-z0-9_.]+", "-", stem).strip("-.")[:_LONGEST] or "model"
