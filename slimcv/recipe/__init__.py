"""Recipes: YAML to checked values, before torch is paid for."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from slimcv import paired
from slimcv.errors import SlimcvError, nearest
from slimcv.gate import Gate
from slimcv.recipe import forced, order
from slimcv.recipe.checking import changed, checked
from slimcv.recipe.forced import EXPORTS
from slimcv.recipe.raw import find, folder, names, overridden, parse, placed, read, step_key
from slimcv.recipe.registry import step_class, step_names, step_summary
from slimcv.recipe.roads import Road
from slimcv.recipe.schema import OBJECTIVES, recipe_schema

if TYPE_CHECKING:
    from slimcv.step import Gain, Step
    from slimcv.train.settings import FinetuneSettings

__all__ = [
    "EXPORTS",
    "Entry",
    "Recipe",
    "find",
    "folder",
    "load",
    "names",
    "recipe_schema",
    "step_class",
    "step_names",
    "step_summary",
]

_RECIPE_KEYS = ("description", "gate", "name", "objective", "steps")


@dataclass(frozen=True)
class Entry:
    """One line of a recipe: a step with its parameters, the fine-tuning that repairs it, and its gate.

    `road` says on which road of which `either` it stands, None for the way that all take.
    """

    name: str
    step: Step
    recover: FinetuneSettings | None = None
    gate: Gate | None = None
    road: Road | None = None

    @property
    def trains(self) -> bool:
        """The entry ends with trained weights, so its accuracy can be judged."""
        return self.recover is not None or self.step.trains

    def undoes(self, gained: Gain) -> str | None:
        """Why the step or the training after it leaves nothing of what an earlier entry gained, or None."""
        reason = self.step.undoes(gained, recovers=self.recover is not None)
        if reason is None and self.recover is not None:
            reason = self.recover.forgets(gained)
        return reason


@dataclass(frozen=True)
class Recipe:
    """A named list of entries, the contract for what comes out, and the text it was read from.

    `objective` says what counts as a gain: with `latency` only time, with `size` also bytes on disk.
    `runtime` is the only one that may serve the result, or one of its forms; None where measurement decides.
    """

    name: str
    description: str
    entries: tuple[Entry, ...]
    gate: Gate
    objective: str
    text: str
    overrides: tuple[str, ...] = field(default=())
    runtime: str | None = None

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
            if entry.road is not None:
                line += f"  either, {entry.road}"
            lines.append(line)
        if self.runtime is not None:
            lines.append(f"runtime {self.runtime}")
        return [*lines, "gate {" + _gate_text(self.gate) + "}  objective " + self.objective]

    def roads(self, fork: int) -> list[list[tuple[int, Entry]]]:
        """The roads of one `either`, each its entries with their positions among all of the recipe's."""
        found: dict[int, list[tuple[int, Entry]]] = {}
        for at, entry in enumerate(self.entries):
            if entry.road is not None and entry.road.fork == fork:
                found.setdefault(entry.road.number, []).append((at, entry))
        return list(found.values())

    def with_training(self, **values: Any) -> Recipe:
        """The same recipe with these fine-tuning settings wherever it trains: in every step that has them, as
        prune_channels has some for its rounds, and in every `recover`. Raises SlimcvError.
        """
        entries = []
        for entry in self.entries:
            known = {key: value for key, value in values.items() if key in type(entry.step).model_fields}
            if known:
                entry = replace(entry, step=changed(entry.step, known))
            if values and entry.recover is not None:
                entry = replace(entry, recover=changed(entry.recover, values))
            entries.append(entry)
        return replace(self, entries=tuple(entries))

    def with_parameters(self, **values: Any) -> Recipe:
        """The same recipe with these parameters in every step that has them.

        Raises SlimcvError where a value is not allowed or no step has the parameter.
        """
        for key in values:
            if not any(key in type(entry.step).model_fields for entry in self.entries):
                raise SlimcvError(
                    f"no step of the recipe {self.name} takes '{key}'", "see `slimcv recipes steps`"
                )
        entries = []
        for entry in self.entries:
            known = {key: value for key, value in values.items() if key in type(entry.step).model_fields}
            entries.append(replace(entry, step=changed(entry.step, known)) if known else entry)
        return replace(self, entries=tuple(entries))

    def strict(self) -> Recipe:
        """The same recipe, its gate met only where that is shown: with 95 % confidence or its own."""
        confidence = self.gate.confidence or paired.CONFIDENCE
        return replace(self, gate=self.gate.model_copy(update={"confidence": confidence}))

    def as_json(self) -> list[dict[str, Any]]:
        """The resolved entries for report.json; training, gate and road are null where there are none."""
        return [
            {
                "step": entry.name,
                "parameters": entry.step.model_dump(mode="json"),
                "recover": entry.recover and entry.recover.model_dump(mode="json", exclude_unset=True),
                "gate": entry.gate and entry.gate.model_dump(mode="json", exclude_none=True),
                "road": entry.road and asdict(entry.road),
            }
            for entry in self.entries
        ]

    def with_runtime(self, runtime: str) -> Recipe:
        """The same recipe for one runtime or one form of it alone (see slimcv.recipe.forced).

        Raises SlimcvError for one that slimcv or this CPU does not have, and where what makes it ready for
        the runtime would undo what an entry gains.
        """
        entries = forced.entries_for(runtime, self.entries)
        try:
            order.check(entries, f"{self.name} for {runtime}")
        except SlimcvError as error:
            plain, _, form = runtime.partition(":")
            instead = f"take {plain}, which runs what the recipe makes" if form else error.hint
            raise SlimcvError(error.message, instead) from error
        return replace(self, entries=entries, runtime=runtime)


def load(source: str, *, overrides: tuple[str, ...] = ()) -> Recipe:
    """Read a recipe by shipped name or, with a path separator or the ending `.yaml`, by path.

    `overrides` are `step.key=value` (every entry of that step), `step#2.key=value` (the second one),
    `step.recover.key=value`, `step.gate.key=value` or `gate.key=value`. Raises SlimcvError naming file,
    entry, key and the nearest valid name.
    """
    path = find(source)
    text = read(path)
    raw = parse(text, path)
    return _build(overridden(raw, overrides, path), path=path, text=text, overrides=overrides)


def _build(raw: dict[str, Any], *, path: Path, text: str, overrides: tuple[str, ...]) -> Recipe:
    for key in raw:
        if key not in _RECIPE_KEYS:
            raise SlimcvError(f"{path}: unknown key '{key}'", nearest(str(key), _RECIPE_KEYS))
    objective = raw.get("objective", "latency")
    if objective not in OBJECTIVES:
        raise SlimcvError(f"{path}: objective is '{objective}'", nearest(str(objective), OBJECTIVES))
    entries = [
        replace(_entry(entry, path, number), road=road)
        for number, (entry, road) in enumerate(placed(raw, path), start=1)
    ]
    order.check(entries, str(path))
    gate = checked(Gate, raw.get("gate") or {}, f"{path}: gate")
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
    name = step_key(raw, path, number)
    where = f"{path}: entry {number} '{name}'"
    recover = raw.get("recover")
    if recover is not None:
        from slimcv.train.settings import FinetuneSettings

        if not step_class(name).trainable:
            raise SlimcvError(
                f"{where}: recover: its integers are no weights that training could change",
                "train in an entry before it, or take quantize_int8, which is trained with its rounding",
            )
        recover = checked(FinetuneSettings, recover, f"{where}: recover")
    gate = None if raw.get("gate") is None else checked(Gate, raw["gate"], f"{where}: gate")
    if gate is not None and gate.confidence is not None:
        raise SlimcvError(
            f"{where}: gate: confidence is asked of what is shipped, on val/", "give it to the recipe's gate"
        )
    if gate is not None and gate.min_speedup is not None:
        raise SlimcvError(
            f"{where}: gate: min_speedup is asked of what is shipped, in the final measurement",
            "give it to the recipe's gate; a step that is no faster is rejected without it",
        )
    return Entry(
        name=name, step=checked(step_class(name), raw[name] or {}, where), recover=recover, gate=gate
    )


def _plain(value: object) -> str:
    if isinstance(value, tuple | list):
        return "[" + ", ".join(map(_plain, value)) + "]"
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def _gate_text(gate: Gate) -> str:
    return ", ".join(f"{key}: {value:.12g}" for key, value in gate.model_dump(exclude_none=True).items())
