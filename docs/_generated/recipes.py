"""The recipe reference: what stands in one, and those that are shipped, word for word."""

from __future__ import annotations

import steps
from tables import prose, table

from slimcv import recipe
from slimcv.gate import Gate
from slimcv.train.settings import FinetuneSettings


def keys() -> str:
    """A table of the keys at the top of a recipe."""
    schema = recipe.recipe_schema()
    rows = [
        (f"`{key}`", "yes" if key in schema["required"] else "", prose(one["description"]))
        for key, one in schema["properties"].items()
    ]
    return table(("key", "required", "what it says"), rows)


def gate() -> str:
    """A table of a gate's bounds."""
    return steps.settings(Gate)


def recover() -> str:
    """A table of what a training may be given."""
    return steps.settings(FinetuneSettings)


def shipped() -> str:
    """Every shipped recipe with its text."""
    return "\n\n".join(
        f"### `{name}`\n\n```yaml\n{recipe.load(name).text.rstrip()}\n```" for name in recipe.names()
    )
