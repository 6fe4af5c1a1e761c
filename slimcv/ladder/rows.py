"""The rows of a ladder: each technique on top of those above it, written as a recipe."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from slimcv.errors import SlimcvError, nearest

ORIGINAL = "original"
TECHNIQUES = ("pooling", "separable", "compile", "amp", "fuse")
NAMES = (ORIGINAL, *TECHNIQUES)

STEPS_PER_CALL = 4
"""Training steps that the row `fuse` puts into one call."""

PLAIN = {"precision": "fp32", "fused_optimizer": False}
"""How rows are trained before a technique of training is added: eager, in float32, by slimcv's own loop."""

UNTAUGHT = {"distill": 0.0, "ema": 0.0}
"""The original has no teacher but itself, and its user keeps no average of its weights."""

NO_COMPILER = "not compiled: there is no C++ compiler (install g++ or clang, or set CXX)"
NO_BF16 = "no gain expected on this CPU: it has neither AVX512-BF16 nor AMX"

AS_ABOVE = "with the weights of the row above"
AFTER_BF16 = "in float32, because this CPU has no bfloat16 instructions"


@dataclass(frozen=True)
class Row:
    """One row: what it is called, the recipe that makes it, and how its training is timed.

    `recipe` is YAML, None for a row without any step. `training` are the settings its training runs with
    (slimcv.train.settings.FinetuneSettings); where `read_only`, they run for a few timed steps and the
    weights are those of the row above, or the carried-over ones where no row is trained. `precision` is that
    of a prediction, `notes` what is known before anything is measured.
    """

    name: str
    recipe: str | None
    training: dict[str, Any]
    read_only: bool = False
    takes_weights_above: bool = False
    precision: str = "fp32"
    notes: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        """`original`, `+ pooling`, …"""
        return self.name if self.name == ORIGINAL else f"+ {self.name}"


@dataclass
class _Steps:
    """What has been put on top of each other so far."""

    surgery: list[dict[str, Any]] = field(default_factory=list)
    training: dict[str, Any] = field(default_factory=lambda: dict(PLAIN))
    folds: bool = False
    compiles: bool = False
    precision: str = "fp32"
    emulated: bool = False
    rows: int = 0

    def recipe(self, title: str, *, epochs: int, training: dict[str, Any]) -> str | None:
        """All of it as a recipe that `slimcv optimize` takes too."""
        import yaml

        steps = list(self.surgery)
        if epochs:
            steps.append({"finetune": {"epochs": epochs, **training}})
        if self.folds:
            steps.append({"fuse_conv_bn": {}})
        if self.compiles:
            steps.append({"compile": {"precision": self.precision}})
        if not steps:
            return None
        values = {"description": f"The row '{title}' of a ladder.", "steps": steps}
        return str(yaml.safe_dump(values, sort_keys=False))


def chosen(text: str) -> tuple[str, ...]:
    """The names in `--rows`, in the ladder's own order and with `original` first.

    Raises SlimcvError for an unknown one.
    """
    names = [name.strip() for name in text.split(",") if name.strip()]
    for name in names:
        if name not in NAMES:
            raise SlimcvError(f"--rows: there is no row '{name}'", nearest(name, NAMES))
    return tuple(name for name in NAMES if name in names or name == ORIGINAL)


def plan(names: Sequence[str], *, epochs: int, compiler: bool, bf16: bool) -> tuple[Row, ...]:
    """The rows for a machine with or without a C++ compiler and bfloat16 instructions.

    Without such instructions the row `amp` is measured all the same: a prediction runs in emulated bfloat16,
    training in it is timed for a few steps, and the weights are those of the row above, because training
    would take many times as long to come to the same. The rows after it then go on in float32.
    """
    steps = _Steps()
    rows = [Row(ORIGINAL, None, {**PLAIN, **UNTAUGHT}, read_only=True)]
    for name in (name for name in TECHNIQUES if name in names):
        rows.append(_add(steps, name, epochs=epochs, compiler=compiler, bf16=bf16))
    return tuple(rows)


def _add(steps: _Steps, name: str, *, epochs: int, compiler: bool, bf16: bool) -> Row:
    notes: list[str] = []
    emulated = name == "amp" and not bf16
    as_above = dict(steps.training)
    epochs_above = epochs if steps.rows else 0
    steps.rows += 1
    if name == "pooling":
        steps.surgery.append({"global_average_pool": {"head": "collapse"}})
    elif name == "separable":
        # The norms stay: the network is to train as it would have from the beginning.
        steps.surgery.append({"depthwise_separable": {"rank": 1, "min_channels": 1, "absorb_norms": False}})
    elif name == "compile" and compiler:
        steps.compiles = True
        steps.training["compile"] = "auto"
    elif name == "compile":
        notes.append(NO_COMPILER)
    elif name == "amp":
        steps.precision = steps.training["precision"] = "bf16"
        if emulated and "compile" in steps.training:
            steps.training["compile"] = True  # Emulated steps take too long to be tried both ways.
    elif name == "fuse":
        steps.folds = True
        steps.training |= {"steps_per_call": STEPS_PER_CALL, "fused_optimizer": True}
    if emulated:
        notes += [NO_BF16, AS_ABOVE]
    elif steps.emulated:
        notes.append(AFTER_BF16)
    if emulated:
        text = steps.recipe(f"+ {name}", epochs=epochs_above, training=as_above)
    else:
        text = steps.recipe(f"+ {name}", epochs=epochs, training=steps.training)
    row = Row(
        name,
        text,
        dict(steps.training),
        read_only=emulated or not epochs,
        takes_weights_above=emulated,
        precision=steps.precision,
        notes=tuple(notes),
    )
    if emulated:
        steps.emulated = True
        steps.precision, steps.training = "fp32", as_above
    return row
