"""A running recipe on a terminal: every step with what became of it, what is under way, the best so far.

It is drawn below the lines that stay, over and over at its place, and goes away with the run.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TextIO

from slimcv.cli.board import ORIGINAL, RUNNING, SHIP, TO_COME, Board, Row
from slimcv.cli.live import LiveLines, is_live

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.live import Live
    from rich.table import Table

    from slimcv.recipe import Recipe
    from slimcv.results import Measurement

REDRAWS_A_SECOND = 1.0
"""While nothing happens but time; a redraw takes some milliseconds from what is measured meanwhile."""

BAR_WIDTH = 24

_LOOKS = {
    "accepted": ("✓", "green"),
    "measured": ("✓", "green"),
    "rejected": ("✗", "red"),
    "skipped": ("–", "yellow"),
    RUNNING: ("▸", "cyan"),
    TO_COME: ("·", "dim"),
}
"""A sign and a colour for each state: none is told by its colour alone."""


def drawn(board: Board) -> RenderableType:
    """The table of steps, the bar, and the best so far."""
    from rich.console import Group
    from rich.text import Text

    parts: list[RenderableType] = [_table(board.rows)]
    if board.text:
        parts.append(_activity(board.text, board.share))
    if board.best is not None:
        parts.append(Text(_best(*board.best), no_wrap=True, overflow="ellipsis"))
    return Group(*parts)


class _Drawn:
    """The board as rich asks for it at every redraw."""

    def __init__(self, board: Board) -> None:
        self._board = board

    def __rich__(self) -> RenderableType:
        return drawn(self._board)


class BoardLines(logging.Handler):
    """The log while a board is drawn: running states go into it, ordinary records stay above it."""

    def __init__(self, board: Board, view: Live) -> None:
        super().__init__()
        self._board, self._view = board, view
        self.setFormatter(logging.Formatter("  %(message)s"))

    def emit(self, record: logging.LogRecord) -> None:
        """Show a record; what goes wrong is reported as any other logging does."""
        try:
            begun = getattr(record, "begun", None)
            if begun is not None:
                self._board.begin(*begun)
            if is_live(record):
                self._board.tell(record.getMessage(), getattr(record, "share", None))
                self._view.refresh()
            elif record.levelno >= logging.INFO:
                self.say(self.format(record))
        except (OSError, ValueError):
            self.handleError(record)

    def say(self, text: str) -> None:
        """Print above the board."""
        from rich.text import Text

        self._view.console.print(Text.from_ansi(text), soft_wrap=True)
        self._view.refresh()


@contextmanager
def watched(recipe: Recipe, logger: logging.Logger, stream: TextIO) -> Iterator[Board]:
    """A board of the recipe, drawn on `stream` where that is a terminal that can; the log goes around it."""
    board = Board([entry.name for entry in recipe.entries])
    from slimcv.report import wants_colour
    from slimcv.report.terminal import console, is_terminal

    if not is_terminal(stream):
        yield board
        return
    from rich.live import Live

    before = list(logger.handlers)
    for lines in before:
        if isinstance(lines, LiveLines):
            lines.end_line()
    view = Live(
        _Drawn(board),
        console=console(stream, colour=wants_colour(stream), terminal=True),
        refresh_per_second=REDRAWS_A_SECOND,
        transient=True,
        redirect_stdout=False,
        redirect_stderr=False,
    )
    with view:
        logger.handlers = [BoardLines(board, view)]
        try:
            yield board
        finally:
            logger.handlers = before


def _table(rows: Sequence[Row]) -> Table:
    from rich.table import Table
    from rich.text import Text

    drawn = Table(box=None, pad_edge=False, show_header=False, padding=(0, 2, 0, 0))
    for justify in ("left", "left", "left", "right", "right", "right"):
        drawn.add_column(justify=justify, no_wrap=True, overflow="ellipsis")  # type: ignore[arg-type]
    for number, row in enumerate(rows):
        sign, style = _LOOKS.get(row.state, ("·", ""))
        name = f"{number} {row.name}" if row.name not in (ORIGINAL, SHIP) else row.name
        cells = [sign, name, row.state, *_figures(row)]
        drawn.add_row(*(Text(text, style=style if at in (0, 2) else "") for at, text in enumerate(cells)))
    return drawn


def _figures(row: Row) -> tuple[str, str, str]:
    """Gain, top-1 and time of a step; of one under way only the time."""
    from slimcv.report import comparison, figures, step_entry

    if row.state == RUNNING:
        return "", "", figures.duration(time.perf_counter() - row.begun)
    if row.record is None:
        return "", "", ""
    entry: dict[str, Any] = step_entry(row.record)
    top1 = (entry["measurement"] or {}).get("top1")
    gain = comparison.changes_of(entry)
    return (
        "" if gain == figures.NOT_MEASURED else gain,
        "" if top1 is None else figures.percent(top1),
        figures.duration(row.record.seconds),
    )


def _activity(text: str, share: float | None) -> RenderableType:
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    line = Table.grid(padding=(0, 1))
    words = Text(text, no_wrap=True, overflow="ellipsis")
    if share is None:
        line.add_row(words)
    else:
        share = min(1.0, max(0.0, share))
        percent = Text(f"{100 * share:3.0f} %")
        line.add_row(ProgressBar(total=1.0, completed=share, width=BAR_WIDTH), percent, words)
    return line


def _best(step: str, found: Measurement, faster: float) -> str:
    from slimcv.report import comparison, figures

    top1 = "" if found.top1 is None else f", top-1 {figures.percent(found.top1)}"
    runs = f"{comparison.latency_of(found.as_json())} in {found.runtime}"
    return f"best so far: {runs} after {step}, {figures.times(faster, 'faster', 'slower', digits=2)}{top1}"
