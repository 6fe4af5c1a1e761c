"""The examples in docs/commands run as they stand there, and print what stands below them.

An example is a fenced block `console`: a line `$ slimcv …`, below it what stdout and stderr say and, where
the exit code is not 0, `$ echo $?` with it. `...` stands for anything, in a table for one or several cells of
a row; measured times, ratios and shares may differ, every other word and number may not.
"""

import contextlib
import io
import re
import shlex
import shutil
import sys
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
import typer
from PIL import Image
from torch import nn

from slimcv import cli

PAGES = sorted((Path(__file__).parents[1] / "docs" / "commands").glob("*.md"))
COMMANDS = typer.main.get_command(cli.app).commands
SLOW = ("doctor", "ladder", "optimize", "profile")
"""Pages whose commands measure for half a minute."""

WHOLE = ("profile", "sensitivity")
"""Pages that show every table of what their commands print."""

COLOURS = {"healthy": (60, 150, 50), "rust": (170, 90, 40), "scab": (80, 70, 60)}

_BLOCK = re.compile(r"^```console\n(.*?)^```", re.DOTALL | re.MULTILINE)
_MEASURED = (
    (re.compile(r"─+"), "─"),
    (re.compile(r"(?:< )?(?:\d[\d,.]* (?:h|min|s|ms)\b ?)+"), "# s "),
    (re.compile(r"\d[\d,.]*×(?: \([\d,.]+–[\d,.]+\))?"), "#×"),
    (re.compile(r"\d[\d,.]* (images/s|GFLOP/s|GB/s)"), r"# \1"),
    (re.compile(r"(?:[+−<>] ?)?\d[\d,.]* (%|points\b)"), r"# \1"),
    (re.compile(r"# % (?:memory|CPU)\b"), "# of limit"),
    (re.compile(r"(?<=  )(?:< )?\d+\.\d+(?= *$|  )", re.MULTILINE), "#"),
)
"""What is measured: durations, ratios, rates, shares, decimals alone in a cell; and the width of a table."""

_CELL, _ANY = re.compile(r"(?<=\S)  +\.\.\.(?=  |\s*$)"), "\0"
"""`...` in place of cells, which does not go beyond the row."""


@dataclass
class Example:
    """A command, what it is to print and the exit code it is to end with."""

    command: str
    lines: list[str] = field(default_factory=list)
    code: int = 0

    @property
    def output(self):
        return "\n".join(self.lines).strip("\n")


def examples(text):
    found = []
    for block in _BLOCK.findall(text):
        asked_for_code = False
        for line in block.splitlines():
            if line == "$ echo $?":
                asked_for_code = True
            elif line.startswith("$ "):
                found.append(Example(line[2:]))
            elif asked_for_code:
                found[-1].code, asked_for_code = int(line), False
            else:
                found[-1].lines.append(line)
    return found


def normal(text):
    for pattern, stands in _MEASURED:
        text = pattern.sub(stands, text)
    return text


def matches(shown, printed):
    """Whether what was printed is what is shown: each part between two `...` in its place, all in order."""
    text = "\n".join(_CELL.sub(f"  {_ANY}", line) for line in normal(shown).splitlines())
    parts = [part.split() for part in text.split("...")]
    got, at = normal(printed), 0
    for number, words in enumerate(parts):
        pattern = r"\s+".join(r"[^\n]+?" if word == _ANY else re.escape(word) for word in words)
        first, last = number == 0, number == len(parts) - 1
        found = re.compile(rf"\s*{pattern}" + (r"\s*\Z" if last else ""))
        hit = found.match(got, at) if first else found.search(got, at)
        if hit is None:
            return False
        at = hit.end()
    return True


def headings(text):
    """The heading of each table, which has a rule below it; the words alone."""
    return [above.split() for above, below in pairwise(text.splitlines()) if re.fullmatch(r"\s*─+\s*", below)]


class Both(io.StringIO):
    """A stream of its own, of which all goes to the terminal too."""

    def __init__(self, terminal):
        super().__init__()
        self.terminal = terminal

    def write(self, text):
        self.terminal.write(text)
        return super().write(text)


def run(command, monkeypatch):
    """Exit code, what stands on the terminal and what is on stdout of `slimcv … [> FILE]`."""
    program, *words = shlex.split(command)
    assert program == "slimcv", command
    target = None
    if ">" in words:
        at = words.index(">")
        (target,), words = words[at + 1 :], words[:at]
    monkeypatch.setattr(sys, "argv", ["slimcv", *words])
    terminal = io.StringIO()
    out = io.StringIO() if target else Both(terminal)
    with (
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(terminal),
        pytest.raises(SystemExit) as end,
    ):
        cli.main()
    if target:
        Path(target).write_text(out.getvalue(), "utf-8")
    return end.value.code, terminal.getvalue(), "" if target else out.getvalue()


def write_pictures(folder):
    """Leaves of three colours, noisy enough that not every answer is right; pictures and labels of train/."""
    random = np.random.default_rng(0)
    pictures, labels = [], []
    for split, count in (("train", 40), ("val", 20)):
        for label, (name, colour) in enumerate(COLOURS.items()):
            (folder / split / name).mkdir(parents=True)
            for number in range(count):
                noise = random.normal(0, 60, (32, 32, 3)) + random.normal(0, 25, 3)
                pixels = np.clip(np.asarray(colour) + noise, 0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(folder / split / name / f"{number:02d}.png")
                if split == "train":
                    pictures.append(pixels)
                    labels.append(label)
    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float() / 255, torch.tensor(labels)


def trained(pictures, labels):
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(32 * 8 * 8, 3),
    )  # fmt: skip
    optimizer = torch.optim.AdamW(network.parameters(), 1e-3)
    for _ in range(6):
        for part in torch.randperm(len(labels)).split(20):
            optimizer.zero_grad()
            nn.functional.cross_entropy(network(pictures[part]), labels[part]).backward()
            optimizer.step()
    return network.eval()


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """model.pt, slimcv.yaml, pictures/ and the bundle model-slim/, made once; every page has a copy."""
    folder = tmp_path_factory.mktemp("docs")
    torch.save(trained(*write_pictures(folder / "pictures")), folder / "model.pt")
    (folder / "slimcv.yaml").write_text(
        "data: pictures\ninput: 3x32x32\nmean: [0, 0, 0]\nstd: [1, 1, 1]\n", "utf-8"
    )
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.chdir(folder)
        monkeypatch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        code, said, _ = run("slimcv optimize model.pt --recipe cpu_storage --quick --threads 1", monkeypatch)
    assert code == 0, said
    return folder


@pytest.mark.parametrize(
    "page",
    [
        pytest.param(page, marks=[pytest.mark.slow] if page.stem in SLOW else [], id=page.stem)
        for page in PAGES
    ],
)
def test_the_examples_of_a_page_print_what_stands_there(page, made, tmp_path, monkeypatch):
    monkeypatch.chdir(shutil.copytree(made, tmp_path / "work"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "work" / "cache"))
    monkeypatch.setenv("COLUMNS", "80")
    found = examples(page.read_text("utf-8"))
    assert found
    for example in found:
        code, terminal, out = run(example.command, monkeypatch)
        assert code == example.code, f"{example.command}\n{terminal}"
        assert matches(example.output, terminal.strip("\n")), f"$ {example.command}\n{terminal}"
        for heading in headings(terminal) if page.stem in WHOLE else ():
            assert heading in headings(example.output), f"$ {example.command}\n{terminal}"
        assert "\x1b" not in terminal
        if not any(words in example.command for words in ("--format", "recipes show")):
            assert max(map(len, out.splitlines()), default=0) <= 80, out


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_page_names_its_options_and_exit_codes(page):
    text = page.read_text("utf-8")
    assert f"<!-- options: {page.stem} -->" in text
    assert f"## Exit codes\n\n<!-- exit-codes: {page.stem} -->" in text
    assert not [one for one in examples(text) if one.lines and not one.output.replace("...", "").strip()]
    for one in examples(text):
        _, command, *words = shlex.split(one.command)
        known = {name for parameter in COMMANDS[command].params for name in parameter.opts}
        assert {word for word in words if word.startswith("--")} <= known, one.command
    assert any(shlex.split(one.command)[1] == page.stem for one in examples(text))


def test_every_command_has_a_page_and_every_page_a_command():
    assert [page.stem for page in PAGES] == sorted(COMMANDS)


PRINTED = """\
 target      p50  images/s  parameters
 ─────────────────────────────────────
 model.pt  0.52 ms     1,930       6,675
slower than before by 1.31× (1.20–1.40), 12.3 % of 163 kB, took 1 min 05 s
 conv1     0.12      12.5  bound 0.5
error: there is no file model.pt"""


def test_what_is_measured_may_differ():
    other = PRINTED.replace("0.52 ms", "11 ms").replace("1 min 05 s", "< 0.1 s").replace("──", "─")
    other = (
        other.replace("1.31× (1.20–1.40)", "2.0×").replace("12.3 %", "9.1 %").replace("  0.12", "  < 0.01")
    )
    assert matches(PRINTED.replace("1,930", "..."), other)


@pytest.mark.parametrize(
    ("there", "instead"),
    [
        ("model.pt  ", "other.pt  "), ("6,675", "6,676"), ("163 kB", "164 kB"), ("slower", "faster"),
        ("12.3 %", "12.3 ms"), ("bound 0.5", "bound 0.6"), ("1,930", "1,931"), ("error: there", "there"),
        ("target", ""), ("error: there is no file model.pt", ""), ("model.pt", "model.pt twice"),
    ],
)  # fmt: skip
def test_anything_else_that_differs_is_found(there, instead):
    assert matches(PRINTED, PRINTED)
    assert not matches(PRINTED, PRINTED.replace(there, instead))


TABLES = """\
 layer       ms  kind
 ────────────────────
 stem      0.12  3×3
 head      0.03  linear

 layer  rate
 ───────────
 stem     12
 head      3"""


def test_anything_in_a_row_does_not_go_beyond_it():
    shown = TABLES.replace("0.12  3×3", " ...").replace("head      3", "...")
    assert matches(shown, TABLES)
    assert matches(shown.replace("stem     12", "stem  ..."), TABLES)
    gone = TABLES.replace(" head      0.03  linear\n", "")
    assert matches(TABLES.replace(" head      0.03  linear\n", "...\n"), gone)
    assert not matches(shown, gone)
    assert not matches(shown, TABLES.replace("      ms  kind", "      ms"))


def test_every_heading_is_known():
    assert headings(TABLES) == [["layer", "ms", "kind"], ["layer", "rate"]]


def test_an_exit_code_belongs_to_the_command_above_it():
    text = "```console\n$ slimcv a\nerror\n$ echo $?\n2\n$ slimcv b > c\n```\n"
    first, second = examples(text)
    assert (first.command, first.output, first.code) == ("slimcv a", "error", 2)
    assert (second.command, second.output, second.code) == ("slimcv b > c", "", 0)
