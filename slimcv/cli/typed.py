"""The command line as it was typed, and what it ran on: what it takes to repeat a result."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any


def command() -> list[str]:
    """The words of the command line, the first of them `slimcv`."""
    return ["slimcv", *sys.argv[1:]]


def repeatable(document: Mapping[str, Any]) -> dict[str, Any]:
    """A command's JSON with the machine and versions that it was measured on, and the command."""
    from slimcv.measure import environment

    return {**document, "environment": environment.describe().as_json(), "command": command()}
