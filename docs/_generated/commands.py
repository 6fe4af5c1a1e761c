"""What `--help` knows of a command, as tables: its arguments and options, and its exit codes."""

from __future__ import annotations

import re
from typing import Any

import typer
from tables import code, prose, table

from slimcv import cli

EVERYWHERE = {
    "0": "done",
    "1": "a bug; it is printed with its traceback",
    "2": "bad input",
    "130": "interrupted",
}
"""What an exit code means where a command says nothing else of it."""

_BRACKETS = re.compile(r"  \[([^\]]*)\]$")
_DEFAULT = re.compile(r"\s*Default: (.*?)\.?$")


def names() -> list[str]:
    """Every command, and every command of a group as `group command`."""
    found = []
    for name, command in _children(typer.main.get_command(cli.app)).items():
        found += [name, *(f"{name} {inner}" for inner in _children(command))]
    return found


def options(name: str) -> str:
    """A table of a command's arguments and options. Raises KeyError for one that does not exist."""
    command = _command(name)
    rows = []
    with command.make_context(name, [], resilient_parsing=True) as context:
        for parameter in command.get_params(context):
            record = parameter.get_help_record(context)
            if record is not None and parameter.name != "help":
                rows.append(_row(*record))
    if not rows:
        return "It takes no arguments and no options."
    return table(("argument or option", "default", "what it says"), rows)


def exit_codes(name: str) -> str:
    """A table of the codes that a command ends with, by its own help where that names them."""
    text = " ".join((_command(name).help or "").split())
    told = re.search(r"Exit codes: (.*?)\.(?: |$)", text)
    own = dict(re.findall(r"(\d+) (.*?)(?:, (?=\d)|$)", told[1])) if told else {}
    codes = {**EVERYWHERE, **own}
    return table(("code", "meaning"), [(one, prose(codes[one])) for one in sorted(codes, key=int)])


def _row(names: str, text: str) -> tuple[str, str, str]:
    """A line of the help: `--seed <int>`, `Seed of everything random.  [default: 0]`."""
    default, notes = "", []
    brackets = _BRACKETS.search(text)
    if brackets is not None:
        text = text[: brackets.start()]
        for note in brackets[1].split("; "):
            if note.startswith("default: "):
                default = code(note.removeprefix("default: "))
            elif note == "required":
                default = "required"
            else:
                notes.append(f"({code(note)})")
    told = _DEFAULT.search(text)
    if told is not None and not default:
        text, default = text[: told.start()], prose(told[1])
    if "<list[" in names:
        names = re.sub(r"<list\[(.*)\]>", r"<\1>", names)
        notes.append("May be given more than once.")
    if not names.startswith("-"):
        names = names.partition(" ")[0]
    return code(names.replace(" range>", ">")), default, " ".join([prose(text), *notes])


def _command(name: str) -> Any:
    command: Any = typer.main.get_command(cli.app)
    for word in name.split():
        command = _children(command)[word]
    return command


def _children(command: Any) -> dict[str, Any]:
    return dict(getattr(command, "commands", {}))
