"""What a recipe may say, as a JSON Schema (draft 2020-12): for editors, and for the reference in docs/."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from slimcv.gate import Gate
from slimcv.recipe.registry import step_class, step_names, step_summary
from slimcv.recipe.roads import EITHER

if TYPE_CHECKING:
    from pydantic import BaseModel

DIALECT = "https://json-schema.org/draft/2020-12/schema"

OBJECTIVES = ("latency", "size")

_STEPS = "#/$defs/steps/properties/"

_PYDANTIC = ("title", "gt")

Schema = dict[str, Any]


def recipe_schema() -> Schema:
    """The schema of a whole recipe, with a definition for each step that is installed.

    What it takes, the parser takes too, but for what no schema can say: the order of the stages, and steps
    that undo what earlier ones gained. It is stricter in one thing: numbers are not taken in quotes.
    """
    from slimcv.train.settings import FinetuneSettings

    return {
        "$schema": DIALECT,
        "title": "A recipe of slimcv",
        "type": "object",
        "required": ["steps"],
        "additionalProperties": False,
        "properties": {
            "name": _text("what reports call it; by default the file's name"),
            "description": _text("what it is for, in a sentence or two"),
            "objective": {
                "enum": list(OBJECTIVES),
                "default": OBJECTIVES[0],
                "description": "what counts as a gain: time alone, or bytes on disk too",
            },
            "gate": _or_nothing(_gate(without="max_step_drop"), "what the result must keep, judged on val/"),
            "steps": {
                "type": "array",
                "minItems": 1,
                "items": {"anyOf": [{"$ref": "#/$defs/entry"}, {"$ref": "#/$defs/fork"}]},
                "description": "what is done, in this order",
            },
        },
        "$defs": {
            "entry": _entry(step_names()),
            "fork": _fork(),
            "steps": {
                "type": "object",
                "properties": {name: _step(name) for name in step_names()},
            },
            "recover": settings_schema(FinetuneSettings),
        },
    }


def settings_schema(kind: type[BaseModel]) -> Schema:
    """The parameters of a step, a gate or a training: their types, bounds, defaults and descriptions."""
    found: Schema = _plain(kind.model_json_schema(mode="validation"))
    return found


def _entry(names: list[str]) -> Schema:
    """A bare name, or a mapping with exactly one step, and `recover` and `gate` beside it."""
    return {
        "anyOf": [
            {"enum": names},
            {
                "type": "object",
                "additionalProperties": False,
                "properties": {
                    **{name: {"$ref": _STEPS + name} for name in names},
                    "recover": {
                        "anyOf": [{"$ref": "#/$defs/recover"}, {"type": "null"}],
                        "description": "fine-tuning that repairs what the step cost, taught by the original",
                    },
                    "gate": _or_nothing(_gate(without="confidence"), "what this entry's result must keep"),
                },
                "oneOf": [{"required": [name]} for name in names],
            },
        ]
    }


def _fork() -> Schema:
    """Several roads, each a list of entries; none of them parts again."""
    road = {"type": "array", "minItems": 1, "items": {"$ref": "#/$defs/entry"}}
    return {
        "type": "object",
        "additionalProperties": False,
        "required": [EITHER],
        "properties": {
            EITHER: {
                "type": "array",
                "minItems": 2,
                "items": road,
                "description": "roads of which the one goes on whose untrained form is the fastest here",
            }
        },
    }


def _step(name: str) -> Schema:
    kind = step_class(name)
    about = f"{step_summary(name)} Stage: {kind.stage.name.lower()}."
    return _or_nothing(settings_schema(kind), about)


def _gate(*, without: str) -> Schema:
    """A gate's bounds but for the one that has no meaning there."""
    found = settings_schema(Gate)
    bounds = {key: bound for key, bound in found["properties"].items() if key != without}
    return {**found, "properties": bounds | {without: {"type": "null"}}}


def _or_nothing(found: Schema, description: str) -> Schema:
    """A key without a value stands for no parameters."""
    return {**found, "type": ["object", "null"], "description": description}


def _text(description: str) -> Schema:
    return {"type": ["string", "null"], "description": description}


def _plain(found: Any) -> Any:
    """Without what pydantic adds: titles made of names, which editors would show, and its own keyword."""
    if isinstance(found, dict):
        return {
            key: _plain(value)
            for key, value in found.items()
            if not (key in _PYDANTIC and not isinstance(value, dict))
        }
    return [_plain(value) for value in found] if isinstance(found, list) else found
