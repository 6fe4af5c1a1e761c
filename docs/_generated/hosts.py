"""What a page would load from elsewhere: the site must read the same without a network."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

_LOADING = {
    "script": "src", "img": "src", "iframe": "src", "source": "src", "video": "src", "audio": "src",
    "embed": "src", "input": "src", "track": "src", "object": "data",
}  # fmt: skip
_LINKS = {
    "stylesheet",
    "icon",
    "preload",
    "prefetch",
    "preconnect",
    "dns-prefetch",
    "modulepreload",
    "manifest",
}
_ELSEWHERE = re.compile(r"(?:[a-z][a-z0-9+.-]*:)?//", re.IGNORECASE)
_IN_STYLES = re.compile(r"(?:@import\s+|url\(\s*)['\"]?((?:https?:)?//[^'\")\s]+)", re.IGNORECASE)


def foreign(site: Path) -> list[str]:
    """`page: address` for everything that a page or a style sheet of the site loads from another host."""
    found = []
    for path in sorted(site.rglob("*")):
        if path.suffix in (".html", ".css"):
            text = path.read_text("utf-8")
            loaded = in_page(text) if path.suffix == ".html" else _IN_STYLES.findall(text)
            found += [f"{path.relative_to(site)}: {address}" for address in loaded]
    return found


def in_page(text: str) -> list[str]:
    """Addresses on other hosts that a page loads when it is opened; links to follow are none."""
    page = _Page()
    page.feed(text)
    page.close()
    return [*page.addresses, *_IN_STYLES.findall(" ".join(page.styles))]


class _Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.addresses: list[str] = []
        self.styles: list[str] = []
        self._in_style = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self._in_style = tag == "style"
        self.styles.append(given.get("style", ""))
        address = given.get(_LOADING.get(tag, ""), "")
        if tag == "link" and _LINKS & set(given.get("rel", "").lower().split()):
            address = given.get("href", "")
        candidates = [
            address,
            *(part.split()[0] for part in given.get("srcset", "").split(",") if part.strip()),
        ]
        self.addresses += [one for one in candidates if _ELSEWHERE.match(one.strip())]

    def handle_data(self, data: str) -> None:
        if self._in_style:
            self.styles.append(data)
