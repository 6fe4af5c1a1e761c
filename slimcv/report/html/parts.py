"""What a page is made of: sections with tables, charts, pictures and text. Everything in them is data."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from markupsafe import Markup

from slimcv.report import figures
from slimcv.report.charts.rows import Rows


@dataclass(frozen=True)
class Cell:
    """Text of a table's cell; `sort` is the number it is sorted by, `mark` a class that colours it."""

    text: str
    sort: float | None = None
    mark: str = ""


@dataclass(frozen=True)
class Table:
    """A table whose first column names the row; columns in `left` are text, the others figures."""

    caption: str
    headings: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    left: frozenset[int] = frozenset({0})
    sortable: bool = True


@dataclass(frozen=True)
class Chart:
    """A chart with the table of what it shows. `drawn` is an SVG, or rows of strips.

    `told` says in a sentence what is to be seen; `key` explains the colours by their classes.
    """

    title: str
    told: str
    drawn: Markup | Rows
    table: Table
    key: tuple[tuple[str, str], ...] = ()
    names: tuple[tuple[str, str, str], ...] = ()
    axes: tuple[str, str] = ("", "")


@dataclass(frozen=True)
class Tile:
    """A figure that people quote: the number, what it counts, and how sure it is."""

    figure: str
    label: str
    more: str = ""


@dataclass(frozen=True)
class Picture:
    """An example picture as a data URI, with what stands under it."""

    source: str
    alt: str
    lines: tuple[str, ...]
    kind: str


@dataclass(frozen=True)
class Code:
    """Text to be shown as it is."""

    title: str
    text: str


@dataclass(frozen=True)
class Facts:
    """Names with values, nested ones as (name, list)."""

    title: str
    pairs: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Note:
    """A paragraph."""

    text: str
    kind: str = ""


@dataclass(frozen=True)
class Pictures:
    """Example pictures under one title."""

    title: str
    told: str
    pictures: tuple[Picture, ...]


Block = Table | Chart | Code | Facts | Note | Pictures


@dataclass(frozen=True)
class Section:
    """A part of the page with a heading; `anchor` is its address in the page."""

    anchor: str
    title: str
    blocks: tuple[Block, ...]


@dataclass(frozen=True)
class Page:
    """The whole page; `verdict` is (class, words)."""

    title: str
    lead: str
    sections: tuple[Section, ...]
    tiles: tuple[Tile, ...] = ()
    verdict: tuple[str, str] | None = None
    foot: str = ""


@dataclass
class Sections:
    """Gathers sections, leaving out those without a block."""

    found: list[Section] = field(default_factory=list)

    def add(self, anchor: str, title: str, blocks: Iterable[Block | None]) -> None:
        """Append a section, unless there is nothing in it."""
        kept = tuple(block for block in blocks if block is not None)
        if kept:
            self.found.append(Section(anchor, title, kept))


def plain(caption: str, headings: Sequence[str], lines: Iterable[Sequence[str]], *, left: int = 1) -> Table:
    """A table of words that is not sorted."""
    rows = tuple(tuple(Cell(text) for text in line) for line in lines)
    return Table(caption, tuple(headings), rows, frozenset(range(left)), sortable=False)


def number(value: float | None, text: str) -> Cell:
    """A cell that sorts by its value."""
    return Cell(text, value)


def milliseconds(value: float | None, *, spread: float | None = None) -> Cell:
    """A latency."""
    return Cell(figures.milliseconds(value, spread=spread), value)


def count(value: float | None) -> Cell:
    """Parameters or MACs."""
    return Cell(figures.count(value), value)


def size(value: float | None) -> Cell:
    """Bytes."""
    return Cell(figures.size(value), value)


def percent(value: float | None) -> Cell:
    """A percentage."""
    return Cell(figures.percent(value), value)
