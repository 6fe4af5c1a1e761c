"""Whether a file run by its own runtime answers what the variant answers that it was made from."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from slimcv import runtimes
from slimcv.data import normalisation, synthetic
from slimcv.errors import Rejected, SlimcvError
from slimcv.measure.variant import computed_exactly
from slimcv.models import capture
from slimcv.runtimes import PLANES, InputFormat, answer, eager
from slimcv.step import Context, Variant

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from slimcv.runtimes import Prepared

PICTURES = 32

LOSSLESS = 1e-4
"""What a step that calls itself lossless may move an output, as a share of the largest one."""

HALF_TOLERANCE = 5e-2
"""bfloat16 keeps 8 bits of a number: on tens of layers outputs move by some percent of the largest."""

INT8_TOLERANCE = 5e-2
"""Relative error that kernels may add. Exact ones differ from the graph by 0.1 to 2 %, saturating ones by 17
to 35 % (CIFAR ResNets and a plain network at 224 pixels, ONNX Runtime and OpenVINO, AVX2 without VNNI).

A network that amplifies rounding moves by much more where a single step of a scale falls otherwise: kernels
may add to it as much as the integers themselves moved it by, where its file computes the same graph and the
gate judges the file's own answers."""

HALF_AGREEMENT = 99.0
INT8_AGREEMENT = 98.0

log = logging.getLogger("slimcv")


@dataclass(frozen=True)
class Parity:
    """Outputs of a runtime beside those of the variant in eager PyTorch, on the same pictures.

    `max_abs_diff` is in units of the outputs, `scale` the largest output; `relative_error` is the norm of the
    difference over the norm of the outputs. `agreement` is the percentage of pictures given the same class,
    where classes closer than the tolerance count as the same. `allowed` is the bound of the error that its
    precision goes by. `computed_exactly` says that an 8-bit graph was asked without integer kernels.
    """

    precision: str
    pictures: int
    max_abs_diff: float
    scale: float
    relative_error: float
    agreement: float
    allowed: float
    input_format: InputFormat = PLANES
    computed_exactly: bool = False


def prove(
    variant: Variant, path: Path, runtime: str, *, context: Context, tolerance: float
) -> dict[str, Any]:
    """Run `path` in its runtime and compare; what was found, for `Variant.details`.

    A network in fp32 must agree within `tolerance` times the largest output; one a runtime computes in bf16,
    or an INT8 graph, within the looser bounds of this file. Raises Rejected where it does not.

    A graph for CPUs whose 8-bit sums do not overflow, as they do here, is asked without integer kernels; a
    runtime that has no such way is believed. An INT8 file whose kernels move the outputs by more than kernels
    do to other networks is asked once more without them: it must be the same graph, and the rest is left to
    the gate.
    """
    exactly = computed_exactly(variant, path)
    found = _found(variant, path, runtime, context=context, tolerance=tolerance, exact=exactly)
    reason = objection(found, int8=variant.precision == "int8")
    if reason is None and not exactly and runtime in runtimes.EXACT and _beyond(asdict(found), variant):
        written = _found(variant, path, runtime, context=context, tolerance=tolerance, exact=True)
        reason = objection(replace(written, allowed=INT8_TOLERANCE), int8=True)
        if reason is None:
            log.warning(
                "%s: its kernels move the outputs by %.0f %%, the integers themselves do by %.0f %%; the "
                "gate judges what the file answers",
                runtime,
                100 * found.relative_error,
                100 * found.allowed,
            )
    if reason is not None and exactly and not found.computed_exactly:
        log.warning("%s is not proved: 8-bit sums overflow on this CPU (%s)", runtime, reason)
        return asdict(found)
    if reason is not None:
        raise Rejected(f"{runtime} answers otherwise than the network it was given: {reason}")
    log.info("%s agrees: largest difference %.2g on %d pictures", runtime, found.max_abs_diff, found.pictures)
    return asdict(found)


def _found(
    variant: Variant, path: Path, runtime: str, *, context: Context, tolerance: float, exact: bool
) -> Parity:
    """The file's answers beside the variant's, computed as the graph is written where that was asked for."""
    prepared = runtimes.prepare(path, runtime, threads=context.train_threads, exact=exact)
    found = compare(variant, prepared, pictures(variant, context), tolerance=tolerance)
    if not exact or runtime not in runtimes.EXACT:
        return found
    return replace(found, computed_exactly=True, precision=variant.precision)


def left_to_the_gate(variant: Variant, runtime: str) -> bool:
    """Whether this runtime's kernels move an INT8 network's outputs so far that accuracy must be judged anew.

    `variant.details` say so under the runtime's name, as `export` found it.
    """
    found = variant.details.get(runtime)
    return found is not None and _beyond(found, variant)


def _beyond(found: Mapping[str, Any], variant: Variant) -> bool:
    return variant.precision == "int8" and found["relative_error"] > INT8_TOLERANCE


def unchanged(before: Variant, after: Variant, *, context: Context, tolerance: float = LOSSLESS) -> None:
    """Raise Rejected where two variants differ in eager PyTorch by over `tolerance` × the largest output."""
    prepared = eager.in_memory(after.model, threads=context.train_threads)
    found = compare(before, prepared, pictures(before, context), tolerance=tolerance)
    reason = objection(found, int8=False)
    if reason is not None:
        raise Rejected(f"the outputs are not what they were: {reason}")


def compare(variant: Variant, prepared: Prepared, pixels: NDArray[np.uint8], *, tolerance: float) -> Parity:
    """Both on pictures (n, height, width, channels), the first one alone."""
    # The compiler builds a program for each batch size it meets: one is enough.
    sizes = [1] * len(pixels) if prepared.runtime in runtimes.COMPILED else [1, len(pixels) - 1]
    parts = np.split(pixels, np.cumsum(sizes)[:-1])
    answers = np.concatenate([answer(prepared, part, variant.input) for part in parts if len(part)])
    return compared(
        variant,
        expected(variant, pixels),
        answers,
        precision=prepared.precision,
        input_format=prepared.input_format,
        tolerance=tolerance,
    )


def expected(variant: Variant, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """The variant's own outputs (n, classes) in eager PyTorch for pictures (n, height, width, channels)."""
    with torch.no_grad():
        capture.set_training(variant.model, False)
        batch = np.ascontiguousarray(normalisation.normalised(pixels, variant.input))
        outputs: NDArray[np.float32] = variant.model(torch.from_numpy(batch)).float().numpy()
    return outputs


def compared(
    variant: Variant,
    expected: NDArray[np.float32],
    answers: NDArray[np.float32],
    *,
    precision: str,
    input_format: InputFormat = PLANES,
    tolerance: float,
) -> Parity:
    """A runtime's `answers` beside the outputs `expected` of the variant, both (n, classes)."""
    difference = np.abs(answers - expected)
    scale = float(np.abs(expected).max()) or 1.0
    allowed = _allowed(variant, precision, tolerance=tolerance)
    return Parity(
        precision=precision,
        pictures=len(expected),
        input_format=input_format,
        max_abs_diff=float(difference.max()),
        scale=scale,
        relative_error=float(np.linalg.norm(difference)) / (float(np.linalg.norm(expected)) or 1.0),
        agreement=_agreement(expected, answers, margin=allowed * scale),
        allowed=allowed,
    )


def objection(found: Parity, *, int8: bool) -> str | None:
    """What speaks against the runtime's answers, or None. A NaN always does."""
    if int8:
        kind, error, least = "relative error", found.relative_error, INT8_AGREEMENT
    else:
        kind, error = "largest difference over the largest output", found.max_abs_diff / found.scale
        least = HALF_AGREEMENT if found.precision in ("bf16", "fp16") else 0.0
    if not error <= found.allowed:
        return f"{kind} {error:.2g}, allowed {found.allowed:.2g}"
    if not found.agreement >= least:
        return f"the same class on {found.agreement:.1f} % of {found.pictures} pictures, needed {least:g} %"
    return None


def pictures(variant: Variant, context: Context) -> NDArray[np.uint8]:
    """Pictures (n, height, width, channels) of the tuning split, filled up with synthetic ones."""
    spec = variant.input
    if context.data is not None and len(context.data.tuning):
        split = context.data.tuning
        chosen = np.random.default_rng(context.seed).permutation(len(split))[:PICTURES]
        pixels = split.pixels(spec.height, spec.width, spec.channels)[np.sort(chosen)]
    else:
        pixels = np.empty((0, spec.height, spec.width, spec.channels), np.uint8)
    if len(pixels) < PICTURES:
        made = synthetic.pictures(PICTURES - len(pixels), spec, seed=context.seed)
        pixels = np.concatenate([pixels, made])
    return pixels


def export(
    variant: Variant, runtime: str, *, context: Context, tolerance: float
) -> tuple[Path, dict[str, Any]]:
    """Write the file of `runtime` into a new folder of the work directory and prove it; path and findings.

    Raises Rejected where the network cannot be written for this runtime or loaded by it, or answers differ.
    """
    context.workdir.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=f"{runtime}-", dir=context.workdir))
    try:
        path = runtimes.write(variant, runtime, folder)
        return path, prove(variant, path, runtime, context=context, tolerance=tolerance)
    except Rejected:
        raise
    except SlimcvError as error:
        if error.disk_fault:
            raise
        raise Rejected(error.message, error.hint) from error


def moved_by_rounding(variant: Variant) -> float:
    """How far its integers moved a network's outputs, as a share of their norm, as the taken rung saw it.

    0 where nobody looked, or training has changed the network since.
    """
    if "finetune_int8" in variant.details:
        return 0.0
    rungs = variant.details.get("quantize_int8", {}).get("rungs", ())
    errors = [rung["error"] for rung in rungs if rung["taken"] and rung["error"] is not None]
    return float(errors[-1]) if errors else 0.0


def _allowed(variant: Variant, precision: str, *, tolerance: float) -> float:
    if variant.precision == "int8":
        return max(INT8_TOLERANCE, moved_by_rounding(variant))
    return max(HALF_TOLERANCE, tolerance) if precision in ("bf16", "fp16") else tolerance


def _agreement(expected: NDArray[np.float32], answers: NDArray[np.float32], *, margin: float) -> float:
    rows = np.arange(len(expected))
    lost = expected.max(axis=1) - expected[rows, answers.argmax(axis=1)]
    return 100.0 * float(np.mean(lost <= margin))
