"""Rows of Markdown tables, with whatever the code says in a form that Markdown and HTML leave alone."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from typing import Any


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table with these cells, which are Markdown already."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def code(text: str) -> str:
    """Text as it is typed."""
    return f"`{text}`" if text else ""


def value(given: Any) -> str:
    """A value as a recipe has it."""
    return code(json.dumps(given, ensure_ascii=False) if not isinstance(given, str) else given)


def prose(text: str) -> str:
    """A sentence that was written for the terminal; what stands in backticks stays as it is."""
    parts = text.replace("|", "\\|").split("`")
    return "`".join(part if number % 2 else _escaped(part) for number, part in enumerate(parts))


def _escaped(text: str) -> str:
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([*_\[\]])", r"\\\1", text)


def allowed(schema: dict[str, Any]) -> str:
    """What a parameter may be, in words, from its JSON Schema."""
    if "anyOf" in schema:
        return " or ".join(dict.fromkeys(allowed(one) for one in schema["anyOf"]))
    if "enum" in schema or "const" in schema:
        return _listed([value(one) for one in schema.get("enum", [schema.get("const")])])
    kind = schema.get("type")
    if kind in ("integer", "number"):
        return " ".join([str(kind), _bounds(schema)]).strip()
    if kind == "array":
        return f"list of {allowed(schema['items'])}"
    if kind == "string" and "examples" in schema:
        return "text such as " + _listed([value(one) for one in schema["examples"]])
    return {"string": "text", "boolean": "true or false", "null": "`null`"}[str(kind)]


def _listed(words: list[str]) -> str:
    return " or ".join(filter(None, [", ".join(words[:-1]), words[-1]]))


def _bounds(schema: dict[str, Any]) -> str:
    low, high = schema.get("minimum"), schema.get("maximum")
    if low is not None and high is not None:
        return f"{low} to {high}"
    parts = [
        f"{word} {schema[key]}"
        for key, word in (
            ("minimum", "from"),
            ("exclusiveMinimum", "above"),
            ("maximum", "to"),
            ("exclusiveMaximum", "below"),
        )
        if key in schema
    ]
    return ", ".join(parts)
