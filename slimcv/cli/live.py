"""The log on stderr: on a terminal a running state is one line drawn over and over, elsewhere plain lines."""

from __future__ import annotations

import logging
import shutil
import sys
from typing import Protocol, TextIO, runtime_checkable

_ERASE_REST = "\x1b[K"
_BAR_WIDTH = 24


def show(logger: logging.Logger, stream: TextIO) -> None:
    """Send what `logger` says to `stream`, and nowhere else.

    Records with the attribute `live` are states of the work in progress (slimcv.train.progress): every one is
    drawn where there is a terminal, elsewhere those at level INFO are lines like others.
    """
    terminal = stream.isatty()
    lines = LiveLines(stream) if terminal else logging.StreamHandler(stream)
    lines.setFormatter(logging.Formatter("  %(message)s"))
    logger.handlers = [lines]
    logger.setLevel(logging.DEBUG if terminal else logging.INFO)
    logger.propagate = False


def say(text: str) -> None:
    """Print on stderr, on a line of its own beside what is being drawn there."""
    for lines in logging.getLogger("slimcv").handlers:
        if isinstance(lines, Lines):
            lines.say(text)
            return
    print(text, file=sys.stderr, flush=True)


def erase() -> None:
    """Take away what is drawn on the terminal, so that a line of the output can stand there."""
    for lines in logging.getLogger("slimcv").handlers:
        if isinstance(lines, LiveLines):
            lines.erase()


def bar(share: float) -> str:
    """How much is done, 0 to 1, in characters that every terminal has."""
    done = round(_BAR_WIDTH * min(max(share, 0.0), 1.0))
    return f"[{'#' * done}{'.' * (_BAR_WIDTH - done)}]"


@runtime_checkable
class Lines(Protocol):
    """A log that draws on a terminal, through which all else must be printed there."""

    def say(self, text: str) -> None:
        """Print a line, or lines, where nothing is drawn over them."""
        ...


class LiveLines(logging.StreamHandler[TextIO]):
    """Draws each live record over the one before; an ordinary one comes on a line of its own below.

    A live record that says which share of the work is done has a bar in front.
    """

    def __init__(self, stream: TextIO) -> None:
        super().__init__(stream)
        self._drawn = False
        self.addFilter(lambda record: record.levelno >= logging.INFO or is_live(record))

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record; what goes wrong is reported as any other logging does."""
        try:
            text = self.format(record)
            if is_live(record):
                share = getattr(record, "share", None)
                text = text if share is None else f"  {bar(share)}{text}"
                # A line that wraps could not be drawn over.
                text = text[: max(1, shutil.get_terminal_size().columns - 1)]
                self.stream.write(f"\r{text}{_ERASE_REST}")
            else:
                self.stream.write(f"{self._end()}{text}\n")
            self._drawn = is_live(record)
            self.flush()
        except (OSError, ValueError):
            self.handleError(record)

    def say(self, text: str) -> None:
        """Print on stderr, below what was drawn last."""
        self.end_line()
        print(text, file=sys.stderr, flush=True)

    def end_line(self) -> None:
        """Leave the cursor on a line of its own."""
        if self._drawn and not self.stream.closed:
            self.stream.write(self._end())
            self.flush()
            self._drawn = False

    def erase(self) -> None:
        """Take away what was drawn last."""
        if self._drawn and not self.stream.closed:
            self.stream.write(f"\r{_ERASE_REST}")
            self.flush()
            self._drawn = False

    def close(self) -> None:
        """End the line that was drawn last."""
        self.end_line()
        super().close()

    def _end(self) -> str:
        return "\n" if self._drawn else ""


def is_live(record: logging.LogRecord) -> bool:
    """A state of the work in progress, to be drawn over the one before."""
    return bool(getattr(record, "live", False))
