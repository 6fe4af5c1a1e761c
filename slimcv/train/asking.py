"""In what form the teacher is asked: the fastest that was measured to say the same as eager PyTorch."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from slimcv import runtimes
from slimcv.data import Split
from slimcv.data.batches import normalise
from slimcv.data.pixels import Pixels
from slimcv.errors import SlimcvError
from slimcv.measure import environment
from slimcv.models import capture
from slimcv.step import Context, InputSpec

BATCH = 16
"""Pictures the teacher is asked about at once."""

PROBE = 8
"""Pictures on which a form is timed and compared."""

WORTH_EXPORTING_SECONDS = 30.0
"""Eager time below which writing the teacher for another runtime, some ten seconds, would not pay."""

AGREEMENT = {"fp32": 1e-3, "bf16": 3e-2}
"""Largest difference of a form's outputs from eager PyTorch's, relative to the largest output."""

EAGER, EAGER_BF16, OPENVINO = FORMS = ("PyTorch", "PyTorch bf16", "OpenVINO")

log = logging.getLogger("slimcv")
Predict = Callable[[np.ndarray], np.ndarray]
"""From uint8 pictures (n, height, width, channels) to outputs (n, classes)."""


@dataclass(frozen=True)
class Form:
    """What runs the teacher; `seconds_each` is what a picture takes, infinity where it was not measured."""

    name: str
    predict: Predict
    seconds_each: float

    def answers(self, pixels: np.ndarray) -> np.ndarray:
        """Float32 (n, classes) for any number of uint8 pictures, a few at a time."""
        parts = [self.predict(pixels[start : start + BATCH]) for start in range(0, len(pixels), BATCH)]
        return np.concatenate(parts).astype(np.float32, copy=False)


def fastest(context: Context, split: Split, *, pictures: int) -> Form:
    """The fastest form that agrees with eager PyTorch, for so many `pictures` in all.

    bfloat16 is tried where the CPU computes in it, OpenVINO where the time it can save is worth the export.
    """
    probe = np.array(teacher_pixels(context, split)[:PROBE])
    forms = [(EAGER, "fp32", _eager(context))]
    if environment.has_bf16_instructions():
        forms.append((EAGER_BF16, "bf16", _eager(context, bf16=True)))
    expected, eager_seconds = _timed(forms[0][2], probe)
    if eager_seconds * pictures >= WORTH_EXPORTING_SECONDS:
        prepared = _openvino(context)
        if prepared is not None:
            forms.append((OPENVINO, prepared.precision, _normalised(prepared.predict, context.teacher.input)))
    best = Form(EAGER, forms[0][2], eager_seconds)
    for name, precision, predict in forms[1:]:
        found, seconds = _timed(predict, probe)
        difference = float(np.abs(found - expected).max() / max(float(np.abs(expected).max()), 1e-9))
        if difference <= AGREEMENT.get(precision, AGREEMENT["fp32"]) and seconds < best.seconds_each:
            best = Form(name, predict, seconds)
    if best.name != EAGER:
        speed = eager_seconds / best.seconds_each
        log.info("the teacher runs in %s, %.1f times as fast as in PyTorch", best.name, speed)
    return best


def named(context: Context, name: str) -> Form:
    """The form that an interrupted training used, not measured again. Raises SlimcvError."""
    if name == OPENVINO:
        prepared = _openvino(context)
        if prepared is None:
            raise SlimcvError(
                "the interrupted training asked its teacher in OpenVINO, which does not take it now",
                "install OpenVINO again, or start anew with --overwrite",
            )
        return Form(name, _normalised(prepared.predict, context.teacher.input), float("inf"))
    return Form(name, _eager(context, bf16=name == EAGER_BF16), float("inf"))


def teacher_pixels(context: Context, split: Split) -> Pixels:
    """The pictures at the teacher's input size."""
    input = context.teacher.input
    return split.pixels(input.height, input.width, input.channels)


def _timed(predict: Predict, pixels: np.ndarray) -> tuple[np.ndarray, float]:
    """The outputs and the seconds a picture of a second call."""
    predict(pixels)
    begun = time.perf_counter()
    answers = predict(pixels)
    return answers, (time.perf_counter() - begun) / len(pixels)


def _eager(context: Context, *, bf16: bool = False) -> Predict:
    model = context.teacher.model
    capture.set_training(model, False)

    def predict(batch: np.ndarray) -> np.ndarray:
        with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
            answer: np.ndarray = model(torch.from_numpy(batch)).float().numpy()
        return answer

    return _normalised(predict, context.teacher.input)


def _openvino(context: Context) -> runtimes.Prepared | None:
    """The teacher in OpenVINO, from the file that the run already has where there is one."""
    try:
        path = context.teacher.artifacts.get("openvino")
        if path is None:
            log.info("writing the teacher for OpenVINO")
            path = runtimes.write(context.teacher, "openvino", context.workdir / "teacher")
        return runtimes.prepare(path, "openvino", threads=context.train_threads)
    except SlimcvError as error:
        log.info("the teacher stays in PyTorch: %s", error.message)
        return None


def _normalised(predict: Predict, input: InputSpec) -> Predict:
    return lambda pixels: predict(normalise(torch.from_numpy(pixels), input).contiguous().numpy())
