"""What MkDocs calls while it builds the site: before the pages, for each page, and at the end."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hosts import foreign
from markers import fill
from mkdocs.exceptions import PluginError
from navigation import filled


def on_config(config: Any) -> Any:
    """Fill the sections that are folders."""
    config.nav = filled(config.nav, Path(config.docs_dir))
    return config


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Put what the code says in the place of the markers."""
    try:
        return fill(markdown)
    except ValueError as error:
        raise PluginError(f"{page.file.src_uri}: {error}") from error


def on_post_build(config: Any) -> None:
    """Refuse a site that loads anything from another host."""
    found = foreign(Path(config.site_dir))
    if found:
        raise PluginError("the site would load from elsewhere:\n" + "\n".join(found))
