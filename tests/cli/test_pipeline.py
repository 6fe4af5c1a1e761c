"""The live view of a running recipe: what it says, and what reaches a real terminal."""

import dataclasses
import fcntl
import io
import logging
import os
import pty
import re
import struct
import subprocess
import sys
import termios

import pytest
import torch
from torch import nn

from slimcv.cli import live, pipeline
from slimcv.cli.board import RUNNING, Board
from slimcv.report.text import draw
from slimcv.results import Latency, Measurement, Record

STEPS = ("fuse_conv_bn", "quantize_int8", "export_onnx")
HIDE_CURSOR, SHOW_CURSOR, UP = "\x1b[?25l", "\x1b[?25h", "\x1b[1A"
COLOURS = re.compile(r"\x1b\[[0-9;]*m")


def measured(p50, **changes):
    latency = Latency(p50=p50, p90=p50, p99=None, n=20, spread=0.01)
    return dataclasses.replace(Measurement(10, 0, 100, latency_ms=latency, runtime="openvino"), **changes)


def decided(entry, step, outcome, before, after):
    return Record(entry + 1, entry, step, outcome, "", 2.0, measurement=after, before=before)


def seen(board, *, colour=False, width=80):
    return draw([pipeline.drawn(board)], colour=colour, width=width)


def test_steps_are_done_running_or_to_come():
    board = Board(STEPS)
    board.decide(Record(0, -1, "original", "measured", "", 1.0, measurement=measured(10.0, top1=95.0)))
    board.begin(0, "fuse_conv_bn")
    board.decide(decided(0, "fuse_conv_bn", "accepted", measured(10.0), measured(8.0, top1=95.0)))
    board.begin(1, "quantize_int8")
    rows = [" ".join(line.split()) for line in seen(board).splitlines()]
    assert rows[0] == "✓ original measured 95.0 % 1.0 s"
    assert rows[1] == "✓ 1 fuse_conv_bn accepted 1.25× 95.0 % 2.0 s"
    assert rows[2].startswith("▸ 2 quantize_int8 running")
    assert rows[3:5] == ["· 3 export_onnx to come", "· ship to come"]


def test_what_was_taken_back_is_no_longer_the_best():
    board = Board(STEPS)
    board.decide(decided(0, "fuse_conv_bn", "accepted", measured(10.0), measured(8.0, top1=95.0)))
    board.decide(decided(1, "quantize_int8", "accepted", measured(8.0), measured(2.0, top1=94.0)))
    assert "best so far: 2.00 ms in openvino after quantize_int8, 5.0× faster, top-1 94.0 %" in seen(board)
    board.decide(Record(3, 1, "quantize_int8", "rejected", "taken back", 0.0, measurement=measured(2.0)))
    assert "best so far: 8.00 ms in openvino after fuse_conv_bn, 1.2× faster, top-1 95.0 %" in seen(board)
    assert "✗" in seen(board)


def test_a_step_that_runs_again_is_running():
    board = Board(STEPS)
    board.decide(decided(0, "fuse_conv_bn", "rejected", measured(10.0), measured(11.0)))
    board.begin(0, "fuse_conv_bn")
    assert board.rows[1].state == RUNNING
    board.begin(-1, "ship")
    assert (board.rows[1].state, board.rows[-1].state) == ("rejected", RUNNING)


def test_the_bar_is_that_of_the_work_at_hand():
    board = Board(STEPS)
    board.tell("epoch 2/4", 0.25)
    assert "25 % epoch 2/4" in seen(board)
    board.tell("layer 1 of 9", None)
    assert "%" not in seen(board)
    board.begin(0, "fuse_conv_bn")
    assert "layer" not in seen(board)


@pytest.mark.parametrize("width", [40, 80, 120])
def test_no_line_is_wider_than_the_terminal(width):
    board = Board(["x" * 60])
    board.decide(decided(0, "x" * 60, "accepted", measured(10.0), measured(1.0, top1=99.0)))
    board.tell("y" * 200, 0.5)
    assert max(map(len, seen(board, width=width).splitlines())) <= width


def test_names_cannot_colour_or_move_anything():
    board = Board(["[red]x[/red]"])
    board.tell("[bold]y", None)
    assert "[red]x[/red]" in seen(board)
    assert "[bold]y" in seen(board)


def test_elsewhere_than_on_a_terminal_nothing_is_drawn(monkeypatch):
    stream, logger = io.StringIO(), logging.Logger("run")
    live.show(logger, stream)
    handlers = list(logger.handlers)
    with pipeline.watched(_Recipe(), logger, stream):
        assert logger.handlers == handlers
        logger.info("a line")
    assert stream.getvalue() == "  a line\n"


class _Recipe:
    entries = ()


@pytest.fixture
def model(tmp_path):
    network = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)
    )  # fmt: skip
    torch.save(network, tmp_path / "model.pt")
    (tmp_path / "mine.yaml").write_text("steps: [export_onnx]\n")
    return tmp_path / "model.pt"


def on_a_terminal(model, **environment):
    """Run optimize with stderr on a terminal of 80 columns: exit code, stdout, what the terminal got."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 80, 0, 0))
    command = [sys.executable, "-m", "slimcv", "optimize", model, "--recipe", model.parent / "mine.yaml"]
    command += ["--input", "3x16x16", "--threads", "1", "--quick", "--format", "json"]
    inherited = {key: value for key, value in os.environ.items() if key not in ("COLUMNS", "NO_COLOR")}
    process = subprocess.Popen(
        [str(word) for word in command],
        stdin=theirs,
        stdout=subprocess.PIPE,
        stderr=theirs,
        env={**inherited, "OMP_NUM_THREADS": "1", "TERM": "xterm", **environment},
    )
    os.close(theirs)
    pieces = []
    while True:
        try:
            pieces.append(os.read(ours, 65536))
        except OSError:  # The other end was closed.
            break
        if not pieces[-1]:
            break
    os.close(ours)
    out = process.communicate()[0]
    return process.returncode, out.decode(), b"".join(pieces).decode()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("environment", "drawn", "coloured"),
    [({}, True, True), ({"NO_COLOR": "1"}, True, False), ({"TERM": "dumb"}, False, False)],
)
def test_a_run_on_a_terminal_draws_its_steps_and_leaves_plain_lines(model, environment, drawn, coloured):
    code, out, terminal = on_a_terminal(model, **environment)
    assert code == 0, terminal
    assert out.startswith("{")
    assert "\x1b" not in out
    assert bool(COLOURS.search(terminal)) is coloured
    plain = COLOURS.sub("", terminal)
    assert bool(re.search("▸ +1 export_onnx +running", plain)) is drawn
    assert (UP in plain) is drawn
    if drawn:
        assert re.search(r"· +ship +to come", plain)
        assert re.search(r"✓ +1 export_onnx +accepted", plain)
        assert plain.count(HIDE_CURSOR) == plain.count(SHOW_CURSOR) == 1
        # What is drawn at last is erased, and only lines that stay come after it.
        after = plain[plain.index(SHOW_CURSOR) :]
        assert "to come" not in after
        assert "written to" in after
    assert "export_onnx: applying" in plain
    # A line that stays has two spaces where the board has one.
    assert re.search(r"1  export_onnx +accepted", plain)
