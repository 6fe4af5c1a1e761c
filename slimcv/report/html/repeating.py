"""How to repeat a result: the command, the recipes, the machine with its versions, and what else is known."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

from slimcv.report import figures
from slimcv.report.html.parts import Block, Code, Facts


def blocks(document: Mapping[str, Any]) -> list[Block]:
    """Command and machine of a command's JSON; what an older version did not write down is left out."""
    found: list[Block] = []
    if document.get("command"):
        found.append(command(document["command"]))
    if document.get("environment"):
        found.append(machine(document["environment"]))
    return found


def command(words: list[str], title: str = "Command") -> Code:
    """The command line, quoted for a shell."""
    return Code(title, shlex.join(words))


def machine(environment: Mapping[str, Any], title: str = "Machine and versions") -> Facts:
    """What was measured on."""
    return Facts(title, facts(environment))


def facts(values: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    """A mapping as names and values in words; long lists are cut and say so."""
    return tuple(
        (str(key).replace("_", " "), figures.size(value) if _is_size(key, value) else _words(value))
        for key, value in values.items()
    )


def _is_size(key: Any, value: Any) -> bool:
    return str(key).endswith("_bytes") and isinstance(value, int)


def _words(value: Any) -> str:
    if value is None or value == []:
        return figures.NOT_MEASURED if value is None else "none"
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_words(item)}" for key, item in value.items())
    if isinstance(value, list):
        more = f" … and {len(value) - 20} more" if len(value) > 20 else ""
        return ", ".join(map(_words, value[:20])) + more
    if isinstance(value, int) and not isinstance(value, bool) and value >= 10_000:
        return f"{value:,}"
    return str(value)
