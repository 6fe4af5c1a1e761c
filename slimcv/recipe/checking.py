"""Values from YAML or the command line, checked against what a step or a gate may be given."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from slimcv.errors import SlimcvError, nearest

if TYPE_CHECKING:
    from pydantic import BaseModel, ValidationError

_Model = TypeVar("_Model", bound="BaseModel")


def checked(kind: type[_Model], values: Any, where: str) -> _Model:
    """The values as settings of this kind. Raises SlimcvError naming `where`, the key and what is wrong."""
    from pydantic import ValidationError

    if not isinstance(values, dict):
        raise SlimcvError(
            f"{where}: expected `key: value` pairs, not {values!r}", nearest("", kind.model_fields)
        )
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        raise _refusal(error, kind, where) from error


def _refusal(error: ValidationError, kind: type[BaseModel], where: str) -> SlimcvError:
    first = error.errors()[0]
    key = str(first["loc"][0]) if first["loc"] else ""
    if first["type"] == "extra_forbidden":
        return SlimcvError(f"{where}: unknown key '{key}'", nearest(key, kind.model_fields))
    problem = first["msg"].removeprefix("Value error, ")
    known = kind.model_fields.get(key)
    described = (
        f"{key}: {known.description}"
        if known is not None and known.description
        else "see `slimcv recipes steps`"
    )
    return SlimcvError(
        f"{where}: {key} = {first.get('input')!r}: {problem[:1].lower()}{problem[1:]}", described
    )


def changed(settings: _Model, values: dict[str, Any]) -> _Model:
    """The same settings with these values from the command line. Raises SlimcvError."""
    return checked(type(settings), {**settings.model_dump(exclude_unset=True), **values}, "command line")
