"""Comments such as `<!-- options: optimize -->` in a page, and what is put in their place.

| marker | what takes its place |
|---|---|
| `options: COMMAND` | arguments and options of a command, or of `recipes show` |
| `exit-codes: COMMAND` | the codes that it ends with |
| `parameters: STEP` | a step's stage, needs and parameters |
| `steps` | all steps, with links from within steps/ |
| `stages` | all steps by stage, with links from without |
| `recipe-keys`, `gate`, `recover`, `recipes` | the parts of the recipe reference |
"""

from __future__ import annotations

import re
from collections.abc import Callable

import commands
import steps

import recipes

NAMED: dict[str, Callable[[str], str]] = {
    "options": commands.options,
    "exit-codes": commands.exit_codes,
    "parameters": steps.parameters,
}
ALONE: dict[str, Callable[[], str]] = {
    "steps": steps.overview,
    "stages": steps.stages,
    "recipe-keys": recipes.keys,
    "gate": recipes.gate,
    "recover": recipes.recover,
    "recipes": recipes.shipped,
}

_MARKER = re.compile(r"^<!--\s*([\w-]+)(?::\s*([^>]*?))?\s*-->$", re.MULTILINE)


def fill(text: str) -> str:
    """The page with every marker that stands on a line of its own replaced.

    Raises ValueError for one that means nothing, so that a misspelt one cannot vanish.
    """
    return _MARKER.sub(_put, text)


def _put(marker: re.Match[str]) -> str:
    kind, name = marker[1], marker[2]
    try:
        return ALONE[kind]() if name is None else NAMED[kind](name)
    except KeyError as error:
        raise ValueError(f"{marker[0]}: there is no {error}") from error
