"""What the shell offers for a word that is still being typed: names of recipes, runtimes, steps, layouts.

Typer calls each with what has been typed so far. A shell waits for the answer, so nothing here imports torch.
"""

from __future__ import annotations

from collections.abc import Iterable


def recipes(incomplete: str) -> list[str]:
    """Shipped recipes; for a path the shell completes files by itself."""
    from slimcv import recipe

    return _beginning(recipe.names(), incomplete)


def runtimes(incomplete: str) -> list[str]:
    """Runtimes that a bundle can be served by."""
    from slimcv import recipe

    return _beginning(["eager", *recipe.EXPORTS], incomplete)


def forced(incomplete: str) -> list[str]:
    """Runtimes and their forms that a model can be optimised for alone."""
    from slimcv.recipe.forced import NAMES

    return _beginning(NAMES, incomplete)


def benched(incomplete: str) -> list[str]:
    """Everything that can run a model, and all of it."""
    from slimcv.runtimes import NAMES

    return _beginning([*NAMES, "all"], incomplete)


def overrides(incomplete: str) -> list[str]:
    """`step.` first, then `step.parameter=`; the recipe's own gate in the same way."""
    from slimcv import recipe
    from slimcv.gate import Gate

    name, dot, _ = incomplete.partition(".")
    if not dot:
        return _beginning([f"{step}." for step in [*recipe.step_names(), "gate"]], incomplete)
    known = Gate if name == "gate" else recipe.step_class(name) if name in recipe.step_names() else None
    return _beginning([f"{name}.{key}=" for key in known.model_fields] if known else [], incomplete)


def target_isas(incomplete: str) -> list[str]:
    """What the CPU that serves may have."""
    from typing import get_args

    from slimcv.steps.quantize_int8 import QuantizeInt8

    return _beginning(get_args(QuantizeInt8.model_fields["target_isa"].annotation), incomplete)


def layouts(incomplete: str) -> list[str]:
    """What `slimcv export` can write."""
    from slimcv.serving.layouts import LAYOUTS

    return _beginning(LAYOUTS, incomplete)


def kept(incomplete: str) -> list[str]:
    """Files that may stay in a bundle, after a comma the next one."""
    from slimcv.optimization import CHECKPOINTS
    from slimcv.serving.layouts import FILES

    return _next((*FILES, CHECKPOINTS), incomplete)


def rows(incomplete: str) -> list[str]:
    """Rows of a ladder, after a comma the next one."""
    from slimcv.ladder.rows import NAMES

    return _next(NAMES, incomplete)


def _beginning(words: Iterable[str], incomplete: str) -> list[str]:
    return [word for word in words if word.startswith(incomplete)]


def _next(words: Iterable[str], incomplete: str) -> list[str]:
    """What a list with commas may go on with."""
    given, comma, begun = incomplete.rpartition(",")
    named = given.split(",")
    return [f"{given}{comma}{word}" for word in _beginning(words, begun) if word not in named]
