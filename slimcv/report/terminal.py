"""Text and tables for a terminal of 80 columns, with or without colour."""

from __future__ import annotations

import io
import os
import re
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.table import Table
    from rich.text import Text

WIDTH = 80
"""Columns of a terminal as it opens; what is drawn here fits into them wherever it goes."""

_BLANK_LINES = re.compile(r"\n{3,}")
_GAP, _EDGES = 2, 2
_LEAST_WORDS, _LEAST_NAME = 20, 8


def draw(parts: Iterable[RenderableType], *, colour: bool, width: int = WIDTH) -> str:
    """Rich renderables as text, with or without colour codes, whatever the terminal of this process."""
    drawn = console(io.StringIO(), colour=colour, terminal=colour, width=width)
    with drawn.capture() as capture:
        for part in parts:
            drawn.print(part)
    lines = "".join(f"{line.rstrip()}\n" for line in capture.get().splitlines())
    return _BLANK_LINES.sub("\n\n", lines)


def is_terminal(stream: TextIO) -> bool:
    """A terminal that understands control codes."""
    return stream.isatty() and os.environ.get("TERM") != "dumb"


def console(stream: TextIO, *, colour: bool, terminal: bool, width: int | None = None) -> Console:
    """Rich's console on a stream, which shows text as it is; to a `terminal` go control codes too."""
    from rich.console import Console

    return Console(
        file=stream,
        width=width,
        force_terminal=terminal,
        color_system="standard" if colour else None,
        no_color=not colour,
        highlight=False,
        markup=False,
        emoji=False,
        legacy_windows=False,
    )


def table(
    headings: Sequence[str],
    lines: Iterable[Sequence[str | Text]],
    *,
    right: Iterable[int] = (),
    names: Iterable[int] = (0,),
    words: Iterable[int] = (),
    width: int = WIDTH,
) -> Table:
    """A table in the one look of all of slimcv's tables, columns in `right` set to the right.

    Where the lines are wider than `width`, headings are broken between their words, then the columns in
    `words` are wrapped, then the columns in `names` are shortened in the middle. Figures are never cut.
    """
    from rich import box
    from rich.table import Table
    from rich.text import Text

    rows = [[Text(cell) if isinstance(cell, str) else cell for cell in line] for line in lines]
    named, to_the_right = set(names), set(right)
    columns = _widths(headings, rows, names=named, words=set(words), width=width)
    drawn = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold")
    for at, (heading, wide) in enumerate(zip(headings, columns, strict=True)):
        side = "right" if at in to_the_right else "left"
        drawn.add_column(Text(heading), justify=side, overflow="fold", width=wide)  # type: ignore[arg-type]
    for row in rows:
        drawn.add_row(
            *(
                Text(shortened(cell.plain, columns[at]), cell.style) if at in named else cell
                for at, cell in enumerate(row)
            )
        )
    return drawn


def shortened(text: str, width: int) -> str:
    """A name of at most `width` columns: both of its ends, with … for what was between them."""
    from rich.cells import cell_len

    shown, kept = text, len(text)
    while kept and cell_len(shown) > width:
        kept -= 1
        head = kept // 2
        shown = f"{text[:head]}…{text[len(text) - kept + head :]}"
    return shown


def wrapped(line: str, *, indent: int) -> str:
    """A line as several that fit, all but the first indented; a word that does not fit stays whole."""
    return textwrap.fill(
        line, WIDTH, subsequent_indent=" " * indent, break_long_words=False, break_on_hyphens=False
    )


def _widths(
    headings: Sequence[str], rows: Sequence[Sequence[Text]], *, names: set[int], words: set[int], width: int
) -> list[int]:
    """The width of each column, as wide as its widest cell where there is room."""
    from rich.cells import cell_len

    everywhere = range(len(headings))
    longest = [max((_longest(row[at].plain.splitlines()) for row in rows), default=0) for at in everywhere]
    wide = [max(cell_len(heading), cells) for heading, cells in zip(headings, longest, strict=True)]
    word = [_longest(heading.split()) for heading in headings]
    over = sum(wide) + _GAP * (len(wide) - 1) + _EDGES - width
    stages: tuple[Mapping[int, int], ...] = (
        {at: max(longest[at], word[at]) for at in everywhere},
        {at: max(_LEAST_WORDS, word[at]) for at in words},
        {at: max(_LEAST_NAME, word[at]) for at in names},
        {at: max([word[at], *(_longest(row[at].plain.split()) for row in rows)]) for at in words},
    )
    for least in stages:
        while over > 0 and (able := [at for at in least if wide[at] > least[at]]):
            wide[max(able, key=wide.__getitem__)] -= 1
            over -= 1
    return wide


def _longest(parts: Iterable[str]) -> int:
    from rich.cells import cell_len

    return max(map(cell_len, parts), default=0)
