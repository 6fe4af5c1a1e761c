"""The recipe as one call asks for it: what the command line and `slimcv.optimize` lay over its file."""

from __future__ import annotations

from collections.abc import Sequence

from slimcv.recipe import Recipe, load


def asked(
    source: str,
    *,
    overrides: Sequence[str] = (),
    max_drop: float | None = None,
    min_speedup: float | None = None,
    strict: bool = False,
    runtime: str | None = None,
    input_format: str | None = None,
    target_isa: str | None = None,
    memory: str | None = None,
    checkpoint_every: str | None = None,
) -> Recipe:
    """A recipe read as by `slimcv.recipe.load`, with what is not None in the place of its own values.

    Raises SlimcvError for what the recipe, or this machine, does not take.
    """
    bounds = _given(max_drop=max_drop, min_speedup=min_speedup)
    plan = load(source, overrides=(*overrides, *(f"gate.{key}={value}" for key, value in bounds.items())))
    if strict:
        plan = plan.strict()
    if runtime is not None:
        plan = plan.with_runtime(runtime)
    plan = plan.with_parameters(**_given(input_format=input_format, target_isa=target_isa))
    return plan.with_training(**_given(memory=memory, checkpoint_every=checkpoint_every))


def _given(**values: object) -> dict[str, object]:
    return {key: value for key, value in values.items() if value is not None}
