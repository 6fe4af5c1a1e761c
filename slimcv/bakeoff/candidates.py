"""All files that can run a variant here, beside those its recipe exports, and why there are no more."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from slimcv import runtimes
from slimcv.bakeoff.names import runtime_of
from slimcv.errors import SlimcvError
from slimcv.measure import environment
from slimcv.runtimes import inductor

if TYPE_CHECKING:
    from slimcv.step import Variant

FROM_CHECKPOINT = ("eager", "eager_channels_last", *runtimes.COMPILED)
"""Runtimes that need no file but the variant's own `.pt2`."""

LIBRARIES = ("onnxruntime", "openvino")

IN_FLOATS = {
    "fp32": ("onnxruntime", "openvino", "eager", "eager_channels_last", "inductor"),
    "bf16": ("openvino", "eager", "eager_channels_last", "inductor"),
}
"""What runs the floats that a quantised network was made from. ONNX Runtime has no bfloat16 on CPUs."""

_HINTS = {"fp32": "f32", "bf16": "bf16"}
"""What OpenVINO calls a precision that it is not to choose itself."""

LOSSLESS = "bfloat16 moves outputs by more than a lossless recipe may"
NO_BF16 = "this CPU has no bfloat16 instructions"
NO_INT8 = "PyTorch computes an 8-bit graph on dequantised values unless it is compiled with frozen weights"


@dataclass(frozen=True)
class Candidates:
    """Files by name, the variant that each must answer like, and what speaks against the others."""

    files: dict[str, Path] = field(default_factory=dict)
    variants: dict[str, Variant] = field(default_factory=dict)
    problems: dict[str, str] = field(default_factory=dict)

    def write(self, name: str, variant: Variant, make: Callable[[], Path]) -> None:
        """Add what `make` writes, or why it cannot."""
        if name in self.problems:
            return
        try:
            self.files[name] = make()
            self.variants[name] = variant
        except SlimcvError as error:
            if error.disk_fault:
                raise
            self.problems[name] = error.message


def compiles(name: str) -> bool:
    """Whether a candidate takes seconds to compile before its first call."""
    return runtime_of(name) in runtimes.COMPILED


def written(
    variant: Variant,
    files: Mapping[str, Path],
    folder: Path,
    *,
    in_floats: Variant | None = None,
    left_out: Mapping[str, str] | None = None,
    lossless: bool = False,
) -> Candidates:
    """Everything but `files`, the recipe's own exports, and machine code, written below `folder`.

    `in_floats` is what a quantised variant was made from. `left_out` says of candidates why they are none,
    among them those whose step was rejected; where the variant is to be `lossless`, bfloat16 is none.
    """
    found = Candidates(problems={name: why for name, why in (left_out or {}).items() if name not in files})
    _own_graph(_fed_alike(variant, variant), files, folder, found)
    if lossless:
        found.problems.update({f"{name}:bf16": LOSSLESS for name in FROM_CHECKPOINT})
    if variant.precision != "int8":
        _floats(variant, {"bf16": FROM_CHECKPOINT}, folder, found)
    elif in_floats is not None:
        _floats(_fed_alike(in_floats, variant), IN_FLOATS, folder / "floats", found)
    return found


def _own_graph(variant: Variant, files: Mapping[str, Path], folder: Path, found: Candidates) -> None:
    """The variant as it is, in every runtime that the recipe has no export for."""
    for name in FROM_CHECKPOINT:
        if name not in files and variant.precision == "int8" and name != "inductor":
            found.problems.setdefault(name, NO_INT8)
        elif name not in files:
            found.write(name, variant, partial(_checkpoint, variant, name, folder))
    for name in LIBRARIES:
        if name not in files:
            source = {**files, **found.files}.get("onnxruntime")
            found.write(name, variant, partial(_exported, variant, name, folder / name, source))


def _floats(variant: Variant, forms: Mapping[str, Sequence[str]], folder: Path, found: Candidates) -> None:
    """A network in floats, in the precisions that this CPU computes in."""
    for form, names in forms.items():
        cast = replace(variant, precision=form)
        hinted = replace(variant, details={**variant.details, "inference_precision": _HINTS[form]})
        for runtime in names:
            name = f"{runtime}:{form}"
            if form == "bf16" and not environment.has_bf16_instructions():
                found.problems.setdefault(name, NO_BF16)
            elif runtime in FROM_CHECKPOINT:
                found.write(name, variant, partial(_checkpoint, cast, runtime, folder / form))
            else:
                source = found.files.get("onnxruntime:fp32")
                found.write(name, variant, partial(_exported, hinted, runtime, folder / name, source))


def _fed_alike(variant: Variant, like: Variant) -> Variant:
    """The variant, its files to be fed as the recipe has it; pixels, where it does not say."""
    fed = like.details.get("input_format", runtimes.PIXELS)
    return replace(variant, details={**variant.details, "input_format": fed})


def _checkpoint(variant: Variant, runtime: str, folder: Path) -> Path:
    """A `.pt2` that several runtimes read, written once. Raises SlimcvError where one lacks its compiler."""
    if runtime in runtimes.COMPILED:
        inductor.require_compiler()
    path = folder / "model.pt2"
    return path if path.is_file() else runtimes.write(variant, "eager", folder)


def _exported(variant: Variant, runtime: str, folder: Path, source: Path | None) -> Path:
    """The file for one runtime; `source` is the same graph as `.onnx`, which OpenVINO's is made from."""
    known = {} if source is None else {"onnxruntime": source}
    fed = {"onnxruntime": {"input_format": variant.details["input_format"]}}
    details = {**fed, **variant.details}
    return runtimes.write(replace(variant, artifacts=known, details=details), runtime, folder)
