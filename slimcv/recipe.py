"""Recipes: YAML to checked values, before torch is paid for."""

from __future__ import annotations

import ast
import importlib
import re
from dataclasses import dataclass, field, replace
from importlib.metadata import entry_points
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from slimcv.errors import SlimcvError, nearest
from slimcv.gate import Gate

if TYPE_CHECKING:
    from pydantic import BaseModel, ValidationError

    from slimcv.step import Step
    from slimcv.train.settings import FinetuneSettings

_STEPS_FOLDER = Path(__file__).parent / "steps"
_RECIPE_KEYS = ("description", "gate", "name", "objective", "steps")
_OBJECTIVES = ("latency", "size")
_ENTRY_KEYS = ("gate", "recover")
_Model = TypeVar("_Model", bound="BaseModel")

EXPORTS = {"openvino": "export_openvino", "onnxruntime": "export_onnx", "inductor": "compile"}
"""The step that makes a variant ready for each runtime; eager PyTorch needs none."""


@dataclass(frozen=True)
class Entry:
    """One line of a recipe: a step with its parameters, the fine-tuning that repairs it, and its gate."""

    name: str
    step: Step
    recover: FinetuneSettings | None = None
    gate: Gate | None = None

    @property
    def trains(self) -> bool:
        """The entry ends with trained weights, so its accuracy can be judged."""
        from slimcv.step import Stage

        return self.recover is not None or self.step.stage == Stage.TRAIN


@dataclass(frozen=True)
class Recipe:
    """A named list of entries, the contract for what comes out, and the text it was read from.

    `objective` says what counts as a gain: with `latency` only time, with `size` also bytes on disk.
    """

    name: str
    description: str
    entries: tuple[Entry, ...]
    gate: Gate
    objective: str
    text: str
    overrides: tuple[str, ...] = field(default=())

    def plan(self) -> list[str]:
        """The resolved entries, one line each, with every parameter spelled out."""
        lines = []
        for number, entry in enumerate(self.entries, start=1):
            values = ", ".join(f"{key}: {_plain(value)}" for key, value in entry.step.model_dump().items())
            line = f"{number}. {entry.name} {{{values}}}"
            if entry.recover is not None:
                chosen = entry.recover.model_dump(exclude_unset=True)
                line += (
                    "  recover {"
                    + ", ".join(f"{key}: {_plain(value)}" for key, value in chosen.items())
                    + "}"
                )
            if entry.gate is not None:
                line += "  gate {" + _gate_text(entry.gate) + "}"
            lines.append(line)
        return [*lines, "gate {" + _gate_text(self.gate) + "}  objective " + self.objective]

    def with_training(self, **values: Any) -> Recipe:
        """The same recipe with these fine-tuning settings in every entry that trains. Raises SlimcvError."""
        entries = []
        for entry in self.entries:
            if entry.recover is not None:
                entry = replace(entry, recover=_changed(entry.recover, values))
            elif entry.trains:
                entry = replace(entry, step=_changed(entry.step, values))
            entries.append(entry)
        return replace(self, entries=tuple(entries))

    def with_input_format(self, input_format: str) -> Recipe:
        """The same recipe with every exported file fed like this. Raises SlimcvError."""
        values = {"input_format": input_format}
        entries = (
            replace(entry, step=_changed(entry.step, values))
            if "input_format" in type(entry.step).model_fields
            else entry
            for entry in self.entries
        )
        return replace(self, entries=tuple(entries))

    def with_runtime(self, runtime: str) -> Recipe:
        """The same recipe for one runtime alone: its export, as the recipe has it or plain, and no other.

        Raises SlimcvError for a runtime that slimcv does not have.
        """
        from slimcv.step import Stage

        if runtime not in ("eager", *EXPORTS):
            raise SlimcvError(f"unknown runtime '{runtime}'", nearest(runtime, ("eager", *EXPORTS)))
        export = EXPORTS.get(runtime)
        kept = [entry for entry in self.entries if entry.step.stage < Stage.EXPORT or entry.name == export]
        if export is not None and export not in {entry.name for entry in kept}:
            kept.append(Entry(export, step_class(export)()))
        return replace(self, entries=tuple(kept))


def _changed(settings: _Model, values: dict[str, Any]) -> _Model:
    return _checked(type(settings), {**settings.model_dump(exclude_unset=True), **values}, "command line")


def folder() -> Path:
    """The shipped recipes: beside the package's files in a wheel, one level up in a checkout."""
    here = Path(__file__).parent
    return here / "recipes" if (here / "recipes").is_dir() else here.parent / "recipes"


def names() -> list[str]:
    """Names of the shipped recipes."""
    return sorted(path.stem for path in folder().glob("*.yaml"))


def step_names() -> list[str]:
    """Names a recipe may use: the files of slimcv/steps and the entry points of the group `slimcv.steps`."""
    files = [path.stem for path in _STEPS_FOLDER.glob("*.py") if path.stem != "__init__"]
    return sorted({*files, *(point.name for point in entry_points(group="slimcv.steps"))})


def step_summary(name: str) -> str:
    """The first line of a step's docstring, read without importing where it is a file of slimcv/steps."""
    path = _STEPS_FOLDER / f"{name}.py"
    text = (
        ast.get_docstring(ast.parse(path.read_text("utf-8"))) if path.is_file() else step_class(name).__doc__
    )
    return (text or "").strip().splitlines()[0] if text else ""


def step_class(name: str) -> type[Step]:
    """The class behind a step's name. The caller has checked the name against `step_names`."""
    for point in entry_points(group="slimcv.steps"):
        if point.name == name:
            loaded: type[Step] = point.load()
            return loaded
    module = importlib.import_module(f"slimcv.steps.{name}")
    found: type[Step] = getattr(module, "".join(word.capitalize() for word in name.split("_")))
    return found


def load(source: str, *, overrides: tuple[str, ...] = ()) -> Recipe:
    """Read a recipe by shipped name or, with a path separator or the ending `.yaml`, by path.

    `overrides` are `step.key=value` (every entry of that step), `step#2.key=value` (the second one),
    `step.recover.key=value`, `step.gate.key=value` or `gate.key=value`. Raises SlimcvError naming file,
    entry, key and the nearest valid name.
    """
    path = _find(source)
    text = _read(path)
    raw = _parse(text, path)
    return _build(_overridden(raw, overrides, path), path=path, text=text, overrides=overrides)


def _find(source: str) -> Path:
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


def _read(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except (UnicodeDecodeError, OSError) as error:
        raise SlimcvError(
            f"{path}: cannot be read as text: {error}", "a recipe is a YAML text file"
        ) from error


def _parse(text: str, path: Path) -> dict[str, Any]:
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


def _overridden(raw: dict[str, Any], overrides: tuple[str, ...], path: Path) -> dict[str, Any]:
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
        except yaml.YAMLError as error:
            raise SlimcvError(
                f"--set {override}: the value is not YAML", "quote it, for example 'key=[1, 2]'"
            ) from error
        if name == "gate" and section is None:
            raw["gate"] = _with(raw.get("gate"), key, value, where=f"{path}: gate")
            continue
        entries = [entry for entry in _entries(raw, path) if name in entry]
        if not entries:
            used = [_step_key(entry, path, at) for at, entry in enumerate(_entries(raw, path), start=1)]
            raise SlimcvError(f"--set {override}: the recipe has no step '{name}'", nearest(name, set(used)))
        if number is not None and not 1 <= int(number) <= len(entries):
            raise SlimcvError(
                f"--set {override}: the recipe has {len(entries)} '{name}'", f"use {name}#1.{key}=…"
            )
        for entry in entries if number is None else [entries[int(number) - 1]]:
            target = section or name
            entry[target] = _with(entry.get(target), key, value, where=f"{path}: '{target}'")
    return raw


def _with(values: Any, key: str, value: Any, *, where: str) -> dict[str, Any]:
    if values is not None and not isinstance(values, dict):
        raise SlimcvError(
            f"{where}: expected `key: value` pairs, not {values!r}", f"for example {{{key}: …}}"
        )
    return {**(values or {}), key: value}


def _entries(raw: dict[str, Any], path: Path) -> list[dict[str, Any]]:
    """The list under `steps` with every entry as a mapping; a bare name stands for no parameters."""
    steps = raw.get("steps")
    if not isinstance(steps, list) or not steps:
        raise SlimcvError(
            f"{path}: 'steps' must be a list with at least one step", "see `slimcv recipes steps`"
        )
    for at, entry in enumerate(steps):
        if isinstance(entry, str):
            steps[at] = {entry: {}}
        elif not isinstance(entry, dict):
            raise SlimcvError(
                f"{path}: entry {at + 1} is {entry!r}", "an entry is a step's name or `name: {key: value}`"
            )
    return steps


def _step_key(entry: dict[str, Any], path: Path, number: int) -> str:
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


def _build(raw: dict[str, Any], *, path: Path, text: str, overrides: tuple[str, ...]) -> Recipe:
    for key in raw:
        if key not in _RECIPE_KEYS:
            raise SlimcvError(f"{path}: unknown key '{key}'", nearest(str(key), _RECIPE_KEYS))
    objective = raw.get("objective", "latency")
    if objective not in _OBJECTIVES:
        raise SlimcvError(f"{path}: objective is '{objective}'", nearest(str(objective), _OBJECTIVES))
    entries = [_entry(entry, path, number) for number, entry in enumerate(_entries(raw, path), start=1)]
    for number, (earlier, later) in enumerate(pairwise(entries), start=2):
        if later.step.stage < earlier.step.stage:
            raise SlimcvError(
                f"{path}: entry {number} '{later.name}' ({later.step.stage.name.lower()}) comes after "
                f"'{earlier.name}' ({earlier.step.stage.name.lower()})",
                "the order is " + ", ".join(stage.name.lower() for stage in type(later.step.stage)),
            )
    gate = _checked(Gate, raw.get("gate") or {}, f"{path}: gate")
    if gate.max_step_drop is not None:
        raise SlimcvError(
            f"{path}: gate: max_step_drop compares a step with the one before", "give it to an entry"
        )
    return Recipe(
        name=str(raw.get("name") or path.stem),
        description=str(raw.get("description") or "").strip(),
        entries=tuple(entries),
        gate=gate,
        objective=objective,
        text=text,
        overrides=overrides,
    )


def _entry(raw: dict[str, Any], path: Path, number: int) -> Entry:
    name = _step_key(raw, path, number)
    where = f"{path}: entry {number} '{name}'"
    recover = raw.get("recover")
    if recover is not None:
        from slimcv.train.settings import FinetuneSettings

        recover = _checked(FinetuneSettings, recover, f"{where}: recover")
    gate = raw.get("gate")
    return Entry(
        name=name,
        step=_checked(step_class(name), raw[name] or {}, where),
        recover=recover,
        gate=None if gate is None else _checked(Gate, gate, f"{where}: gate"),
    )


def _checked(kind: type[_Model], values: Any, where: str) -> _Model:
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


def _plain(value: object) -> str:
    if isinstance(value, tuple | list):
        return "[" + ", ".join(map(_plain, value)) + "]"
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def _gate_text(gate: Gate) -> str:
    return ", ".join(f"{key}: {value:.12g}" for key, value in gate.model_dump(exclude_none=True).items())
