"""What the code says of a step: where it may stand, what it needs, what it may be given."""

from __future__ import annotations

from functools import cache

from tables import allowed, code, prose, table, value

from slimcv import recipe
from slimcv.recipe.schema import settings_schema
from slimcv.step import Stage
from slimcv.train.settings import FinetuneSettings


@cache
def own() -> list[str]:
    """Steps that come with slimcv, not with other packages, in the order in which a recipe may have them."""
    ours = [name for name in recipe.step_names() if _kind(name).__module__.startswith("slimcv.steps.")]
    return sorted(ours, key=lambda name: (_kind(name).stage, name))


def overview() -> str:
    """A table of the steps with a link to the page of each."""
    rows = [
        (f"[{name}]({name}.md)", _kind(name).stage.name.lower(), prose(recipe.step_summary(name)))
        for name in own()
    ]
    return table(("step", "stage", "what it does"), rows)


def parameters(name: str) -> str:
    """A step's stage and needs, and a table of its parameters. Raises KeyError for an unknown step."""
    if name not in recipe.step_names():
        raise KeyError(name)
    kind = _kind(name)
    facts = [
        f"Stage: {code(kind.stage.name.lower())}",
        f"pictures: {'not needed' if _is_free(name) else 'needed'}",
        f"shipped in: {', '.join(_recipes_with(name)) or 'no recipe'}",
    ]
    inherited = _inherited(name)
    described = settings_schema(kind)["properties"]
    rows = [_row(key, described[key]) for key in described if key not in inherited]
    parts = ["; ".join(facts) + "."]
    if rows:
        parts.append(table(("parameter", "may be", "default", "what it says"), rows))
    elif not inherited:
        parts.append("It has no parameters.")
    if inherited:
        parts.append("It trains, and so takes the other parameters of [finetune](finetune.md) too.")
    return "\n\n".join(parts)


def settings(kind: type) -> str:
    """A table of what a gate or a training may be given."""
    described = settings_schema(kind)["properties"]
    return table(
        ("key", "may be", "default", "what it says"), [_row(key, one) for key, one in described.items()]
    )


def stages() -> str:
    """The order of the stages, with the steps of each."""
    linked = {name: f"[{name}](steps/{name}.md)" for name in own()}
    rows = [
        (
            code(stage.name.lower()),
            ", ".join(link for name, link in linked.items() if _kind(name).stage == stage),
        )
        for stage in Stage
    ]
    return table(("stage", "steps"), rows)


@cache
def _kind(name: str) -> type:
    return recipe.step_class(name)


def _row(key: str, schema: dict) -> tuple[str, str, str, str]:
    return code(key), allowed(schema), value(schema.get("default")), prose(schema["description"])


def _inherited(name: str) -> set[str]:
    """Parameters that are those of a fine-tuning, word for word."""
    kind = _kind(name)
    if name == "finetune" or not issubclass(kind, FinetuneSettings):
        return set()
    return {
        key
        for key, field in FinetuneSettings.model_fields.items()
        if (field.default, field.description)
        == (kind.model_fields[key].default, kind.model_fields[key].description)
    }


def _is_free(name: str) -> bool:
    """Whether it runs without pictures: it changes nothing, or is meant to be right without them."""
    step = _kind(name)()
    return bool(step.lossless or step.data_free) and not (step.needs_data or step.trains)


def _recipes_with(name: str) -> list[str]:
    return [code(one) for one, names in _used().items() if name in names]


@cache
def _used() -> dict[str, set[str]]:
    """The steps of every shipped recipe."""
    return {one: {entry.name for entry in recipe.load(one).entries} for one in recipe.names()}
