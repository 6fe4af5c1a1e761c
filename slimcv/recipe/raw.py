"""A recipe as it is written: found, parsed, entries in one form, and what the command line puts over it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from slimcv.errors import SlimcvError, nearest
from slimcv.recipe.registry import step_names
from slimcv.recipe.roads import Road, spread

_ENTRY_KEYS = ("gate", "recover")


def folder() -> Path:
    """The shipped recipes: beside the package's files in a wheel, one level up in a checkout."""
    here = Path(__file__).parents[1]
    return here / "recipes" if (here / "recipes").is_dir() else here.parent / "recipes"


def names() -> list[str]:
    """Names of the shipped recipes."""
    return sorted(path.stem for path in folder().glob("*.yaml"))


def find(source: str) -> Path:
    """The file of a shipped recipe's name or of a path. Raises SlimcvError."""
    if "/" in source or source.endswith((".yaml", ".yml")):
        path = Path(source)
        if not path.is_file():
            what = "is a directory" if path.is_dir() else "does not exist"
            raise SlimcvError(
                f"recipe file '{source}' {what}", "shipped recipes go by name: " + ", ".join(names())
            )
        return path
    path = folder() / f"{source}.yaml"
    if not path.is_file():
        raise SlimcvError(
            f"no recipe is called '{source}'",
            f"{nearest(source, names())} A file needs a path, such as ./{source}.yaml",
        )
    return path


def read(path: Path) -> str:
    """The text of a file. Raises SlimcvError."""
    try:
        return path.read_text("utf-8")
    except (UnicodeDecodeError, OSError) as error:
        raise SlimcvError(
            f"{path}: cannot be read as text: {error}", "a recipe is a YAML text file"
        ) from error


def parse(text: str, path: Path) -> dict[str, Any]:
    """The mapping that a recipe is. Raises SlimcvError, with the line where it is not YAML."""
    import yaml

    try:
        raw = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark is not None else ""
        problem = getattr(error, "problem", None) or "not readable"
        raise SlimcvError(
            f"{path}{where}: not YAML: {problem}", "see `slimcv recipes show cpu_fast`"
        ) from error
    if not isinstance(raw, dict):
        raise SlimcvError(
            f"{path}: a recipe is a mapping with the key 'steps'", "see `slimcv recipes show cpu_fast`"
        )
    return raw


def overridden(raw: dict[str, Any], overrides: tuple[str, ...], path: Path) -> dict[str, Any]:
    """The mapping with `--set` values put in. Raises SlimcvError for what the recipe does not have."""
    import yaml

    for override in overrides:
        match = re.fullmatch(r"([\w-]+)(?:#(\d+))?\.(?:(recover|gate)\.)?(\w+)=(.*)", override, re.DOTALL)
        if match is None:
            raise SlimcvError(
                f"--set {override}: not of the form step.key=value", "for example depthwise_separable.rank=2"
            )
        name, number, section, key, value_text = match.groups()
        try:
            value = yaml.safe_load(value_text)
        except (yaml.YAMLError, ValueError) as error:
            raise SlimcvError(
                f"--set {override}: the value is not YAML", "quote it, for example 'key=[1, 2]'"
            ) from error
        if name == "gate" and section is None:
            raw["gate"] = _with(raw.get("gate"), key, value, where=f"{path}: gate")
            continue
        meant = [entry for entry in entries(raw, path) if name in entry]
        if not meant:
            used = [step_key(entry, path, at) for at, entry in enumerate(entries(raw, path), start=1)]
            raise SlimcvError(f"--set {override}: the recipe has no step '{name}'", nearest(name, set(used)))
        if number is not None and not 1 <= int(number) <= len(meant):
            raise SlimcvError(
                f"--set {override}: the recipe has {len(meant)} '{name}'", f"use {name}#1.{key}=…"
            )
        for entry in meant if number is None else [meant[int(number) - 1]]:
            target = section or name
            entry[target] = _with(entry.get(target), key, value, where=f"{path}: '{target}'")
    return raw


def _with(values: Any, key: str, value: Any, *, where: str) -> dict[str, Any]:
    if values is not None and not isinstance(values, dict):
        raise SlimcvError(
            f"{where}: expected `key: value` pairs, not {values!r}", f"for example {{{key}: …}}"
        )
    return {**(values or {}), key: value}


def entries(raw: dict[str, Any], path: Path) -> list[dict[str, Any]]:
    """The entries under `steps` and on all roads as mappings; a bare name is one without parameters."""
    return [entry for entry, _ in placed(raw, path)]


def placed(raw: dict[str, Any], path: Path) -> list[tuple[dict[str, Any], Road | None]]:
    """The same with the road that each stands on. Raises SlimcvError."""
    steps = raw.get("steps")
    if not isinstance(steps, list) or not steps:
        raise SlimcvError(
            f"{path}: 'steps' must be a list with at least one step", "see `slimcv recipes steps`"
        )
    found = []
    for number, (among, at, road) in enumerate(spread(steps, path), start=1):
        entry = among[at]
        if isinstance(entry, str):
            entry = among[at] = {entry: {}}
        elif not isinstance(entry, dict):
            raise SlimcvError(
                f"{path}: entry {number} is {entry!r}", "an entry is a step's name or `name: {key: value}`"
            )
        found.append((entry, road))
    return found


def step_key(entry: dict[str, Any], path: Path, number: int) -> str:
    """The one step that an entry names. Raises SlimcvError."""
    keys = [str(key) for key in entry if key not in _ENTRY_KEYS]
    known = step_names()
    if not keys:
        raise SlimcvError(f"{path}: entry {number} names no step", nearest("", known))
    for key in keys:
        if key not in known:
            raise SlimcvError(
                f"{path}: entry {number}: unknown step '{key}'", nearest(key, [*known, *_ENTRY_KEYS])
            )
    if len(keys) > 1:
        raise SlimcvError(
            f"{path}: entry {number} names {len(keys)} steps: {', '.join(keys)}",
            "give each its own '- ' line",
        )
    return keys[0]
