"""What progress looks like on a terminal and elsewhere."""

import io
import logging

import pytest

from slimcv.cli import live


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def logger(monkeypatch):
    monkeypatch.setenv("COLUMNS", "30")
    made = logging.Logger("progress")
    yield made
    for handler in made.handlers:
        handler.close()


def told(logger, text, level=logging.INFO):
    logger.log(level, "%s", text, extra={"live": True})


def test_on_a_terminal_a_running_state_is_drawn_over_the_one_before(logger):
    terminal = Terminal()
    live.show(logger, terminal)
    logger.info("begun")
    told(logger, "step 1")
    told(logger, "step 2", logging.DEBUG)
    logger.info("done")
    assert terminal.getvalue() == "  begun\n\r  step 1\x1b[K\r  step 2\x1b[K\n  done\n"


def test_a_share_of_the_work_is_a_bar_that_can_be_taken_away(logger, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    terminal = Terminal()
    live.show(logger, terminal)
    for share in (0.0, 0.5, 1.0):
        logger.info("3 pictures", extra={"live": True, "share": share})
    drawn = terminal.getvalue().split("\r")[1:]
    assert [(line.count("#"), line.count(".")) for line in drawn] == [(0, 24), (12, 12), (24, 0)]
    assert all("3 pictures" in line for line in drawn)
    (lines,) = logger.handlers
    lines.erase()
    lines.erase()
    logger.info("done")
    assert terminal.getvalue().endswith("\r\x1b[K  done\n")
    assert terminal.getvalue().count("\r") == 4


def test_a_line_that_is_too_long_for_the_terminal_is_cut(logger):
    terminal = Terminal()
    live.show(logger, terminal)
    told(logger, "x" * 100)
    assert terminal.getvalue() == "\r" + "  " + "x" * 27 + "\x1b[K"


def test_when_the_log_ends_the_cursor_is_on_a_line_of_its_own(logger):
    terminal = Terminal()
    live.show(logger, terminal)
    told(logger, "step 1")
    logger.handlers[0].close()
    assert terminal.getvalue().endswith("\n")


def test_elsewhere_there_are_plain_lines_and_only_those_that_are_to_stay(logger):
    stream = io.StringIO()
    live.show(logger, stream)
    told(logger, "step 1")
    told(logger, "step 2", logging.DEBUG)
    logger.info("done")
    assert stream.getvalue() == "  step 1\n  done\n"


def test_other_chatter_is_not_shown(logger):
    terminal = Terminal()
    live.show(logger, terminal)
    logger.debug("details")
    assert terminal.getvalue() == ""
