"""What `--runtime` may name: a runtime, or one of its forms as the table of candidates calls it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from slimcv import runtimes
from slimcv.errors import SlimcvError, nearest
from slimcv.recipe.checking import changed
from slimcv.recipe.registry import step_class

if TYPE_CHECKING:
    from slimcv.recipe import Entry

EXPORTS = {
    "openvino": "export_openvino",
    "onnxruntime": "export_onnx",
    "inductor": "compile",
    "aotinductor": "export_aotinductor",
}
"""The step that makes a variant ready for each runtime; eager PyTorch needs none."""

QUANTISERS = {"openvino:nncf": "export_nncf", "onnxruntime:qdq": "export_onnx_int8"}
"""The step that makes each form which another quantiser makes."""

_FLOATS = {
    "eager": ("fp32", "bf16"),
    "eager_channels_last": ("fp32", "bf16"),
    "inductor": ("fp32", "bf16"),
    "inductor_unfrozen": ("bf16",),
    "onnxruntime": ("fp32",),
    "openvino": ("fp32", "bf16"),
}

NAMES = (
    *runtimes.NAMES,
    *QUANTISERS,
    *(f"{runtime}:{form}" for runtime, forms in _FLOATS.items() for form in forms),
)

_WITHOUT_INTEGERS = "inductor_unfrozen"
"""The compiler has 8-bit layers for frozen weights alone."""

_PRECISIONS: dict[str, dict[str, Any]] = {
    "openvino:fp32": {"precision": "f32"},
    "inductor:bf16": {"precision": "bf16"},
}
"""What the export is told for a form of floats."""


def entries_for(name: str, entries: tuple[Entry, ...]) -> tuple[Entry, ...]:
    """Those of a recipe's entries that lead to `name`, and the exports it needs, as the recipe has them.

    A form in floats, or by another quantiser, leaves out `quantize_int8`; the latter keeps the plain
    export, for the case that it comes to nothing. Raises SlimcvError for a name that there is not, and for
    bfloat16 on a CPU without it.
    """
    if name not in NAMES:
        raise SlimcvError(f"unknown runtime '{name}'", nearest(name, NAMES))
    runtime, _, form = name.partition(":")
    _require_bf16(name, form)
    without_integers = bool(form) or runtime == _WITHOUT_INTEGERS
    kept = [entry for entry in entries if _leads_to(entry, runtime, form, without_integers=without_integers)]
    for step in filter(None, (EXPORTS.get(runtime), QUANTISERS.get(name))):
        if step not in {entry.name for entry in kept}:
            kept.append(_plain(step))
    told = _PRECISIONS.get(name, {})
    return tuple(
        replace(entry, step=changed(entry.step, told)) if told and entry.name == EXPORTS[runtime] else entry
        for entry in kept
    )


def _leads_to(entry: Entry, runtime: str, form: str, *, without_integers: bool) -> bool:
    from slimcv.step import Stage

    if entry.step.stage == Stage.EXPORT:
        kind, _, its_form = entry.step.artifact.partition(":")
        return kind == runtime and (not form or its_form in ("", form))
    return not (without_integers and entry.step.stage == Stage.QUANTIZE and entry.step.quantizes)


def _plain(step: str) -> Entry:
    from slimcv.recipe import Entry

    return Entry(step, step_class(step)())


def _require_bf16(name: str, form: str) -> None:
    from slimcv.measure import environment

    if form == "bf16" and not environment.has_bf16_instructions():
        raise SlimcvError(
            f"--runtime {name}: this CPU has no bfloat16 instructions", "take the form fp32, or int8"
        )
