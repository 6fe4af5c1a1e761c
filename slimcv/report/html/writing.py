"""From a page's parts to its HTML: every name is escaped, and a policy in the page forbids the rest."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from slimcv import __version__
from slimcv.quoting import one_line
from slimcv.report.charts.rows import Rows
from slimcv.report.html.parts import Chart, Code, Facts, Note, Page, Pictures, Table

_FOLDER = Path(__file__).parent
_KINDS = {
    Table: "table", Chart: "chart", Code: "code", Facts: "facts", Note: "note", Pictures: "pictures",
}  # fmt: skip


def write(page: Page) -> str:
    """The page as one file. Its policy lets nothing run but its own script, and nothing be fetched."""
    script = (_FOLDER / "page.js").read_text("utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    environment = Environment(
        loader=FileSystemLoader(_FOLDER),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["shown"] = one_line
    environment.tests["rows"] = lambda drawn: isinstance(drawn, Rows)
    text = environment.get_template("page.html.jinja").render(
        page=page,
        kind=lambda block: _KINDS[type(block)],
        style=Markup((_FOLDER / "style.css").read_text("utf-8")),
        script=Markup(script),
        policy=f"default-src 'none'; style-src 'unsafe-inline'; img-src data:; script-src 'sha256-{digest}'",
        version=__version__,
    )
    return text + "\n" if not text.endswith("\n") else text
