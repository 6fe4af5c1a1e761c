"""What the teacher says about every training picture and its mirror images: asked once, kept on disk.

A student that sees another crop than its teacher did learns from inconsistent targets (Beyer et al. 2022,
"Knowledge distillation: A good teacher is patient and consistent"). Mirror images are few enough to ask for
all of them beforehand.
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch.fx import GraphModule

from slimcv import runtimes
from slimcv.data import Split
from slimcv.data.augmentation import flip
from slimcv.data.batches import normalise
from slimcv.errors import SlimcvError
from slimcv.models import capture
from slimcv.step import Context, InputSpec
from slimcv.train.saving import complete

BATCH = 16
PROBE = 8
"""Pictures on which a runtime is timed and compared."""

WORTH_EXPORTING_SECONDS = 30.0
"""Eager time below which writing the teacher for another runtime, some ten seconds, would not pay."""

SHARE_OF_TIME = 0.5
"""The part of the remaining time that the teacher may have."""

AGREEMENT = {"fp32": 1e-3, "bf16": 3e-2}
"""Largest difference of a runtime's outputs from eager PyTorch's, relative to the largest output."""

LOG_SECONDS = 5.0

log = logging.getLogger("slimcv")
Predict = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Targets:
    """The teacher's outputs for each view that was asked for: view to float32 (n, classes), mapped from disk.

    A view is a choice of slimcv.data.augmentation.flip. `top1` is the teacher's percentage on the training
    pictures, `seconds` what asking took, 0 where all was cached.
    """

    logits: dict[int, np.ndarray]
    top1: float
    seconds: float

    def of(self, index: np.ndarray, view: np.ndarray) -> np.ndarray:
        """Float32 (len(index), classes) for pictures in those views; a view not asked for has view 0's."""
        found: np.ndarray = np.asarray(self.logits[0][index])
        for known, logits in self.logits.items():
            chosen = view == known
            if known and chosen.any():
                found[chosen] = logits[index[chosen]]
        return found


def targets(context: Context, split: Split, *, views: tuple[int, ...], seconds_left: float) -> Targets | None:
    """Ask `context.teacher` about `split` at its own input size, or read from disk what it said before.

    Where all views would take over half of `seconds_left`, as many as fit are asked about; None where the
    unchanged pictures alone do not fit. Raises SlimcvError where the work folder cannot be written.
    """
    begun = time.perf_counter()
    files = _files(context, views)
    missing = [view for view, path in files.items() if _read(path, len(split)) is None]
    if missing:
        predict, seconds_each = _fastest(context, split, pictures=len(missing) * len(split))
        affordable = SHARE_OF_TIME * seconds_left / max(seconds_each * len(split), 1e-9)
        if affordable < len(missing):
            missing = missing[: max(0, int(affordable))]
            log.info("too little time to ask the teacher about %d views: %d asked", len(views), len(missing))
        for number, view in enumerate(missing, start=1):
            asked = f"teacher, view {number} of {len(missing)}"
            _write(files[view], _ask(predict, _pixels(split, context.teacher.input), view=view, name=asked))
    logits = {view: read for view, path in files.items() if (read := _read(path, len(split))) is not None}
    if 0 not in logits:
        return None
    top1 = 100.0 * float(np.mean(logits[0].argmax(axis=1) == split.labels))
    return Targets(logits, top1, time.perf_counter() - begun if missing else 0.0)


def fingerprint(model: GraphModule) -> str:
    """A SHA-256 of the computation and of every parameter and buffer."""
    digest = hashlib.sha256(model.code.encode())
    for name, value in model.state_dict().items():
        digest.update(f"\0{name} {tuple(value.shape)} {value.dtype}\0".encode())
        digest.update(value.detach().contiguous().view(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def _files(context: Context, views: tuple[int, ...]) -> dict[int, Path]:
    """Where each view's outputs are kept; the name tells teacher, its input and the data apart."""
    data = context.data.fingerprint if context.data is not None else ""
    parts = f"{fingerprint(context.teacher.model)} {context.teacher.input!r} {data}"
    key = hashlib.sha256(parts.encode()).hexdigest()[:24]
    return {view: context.workdir / "teacher" / f"{key}-view{view}.npy" for view in views}


def _read(path: Path, count: int) -> np.ndarray | None:
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError):
        return None
    return array if isinstance(array, np.ndarray) and array.ndim == 2 and len(array) == count else None


def _write(path: Path, logits: np.ndarray) -> None:
    with complete(path) as partial, partial.open("wb") as file:
        np.save(file, logits, allow_pickle=False)


def _pixels(split: Split, input: InputSpec) -> np.ndarray:
    return split.pixels(input.height, input.width, input.channels)


def _ask(predict: Predict, pixels: np.ndarray, *, view: int, name: str) -> np.ndarray:
    """The outputs for all pictures in one view, in order."""
    answers: list[np.ndarray] = []
    begun = told = time.perf_counter()
    for start in range(0, len(pixels), BATCH):
        answers.append(predict(_turned(pixels[start : start + BATCH], view)))
        now = time.perf_counter()
        if now - told >= LOG_SECONDS:
            told, done = now, start + len(answers[-1])
            speed = done / (now - begun)
            log.info(
                "%s: %d/%d, %.0f images/s, ETA %.0f s",
                name,
                done,
                len(pixels),
                speed,
                (len(pixels) - done) / speed,
            )
    return np.concatenate(answers).astype(np.float32, copy=False)


def _fastest(context: Context, split: Split, *, pictures: int) -> tuple[Predict, float]:
    """The faster of eager PyTorch and OpenVINO where both agree, and its seconds a picture."""
    probe = np.array(_pixels(split, context.teacher.input)[:PROBE])
    eager = _eager(context)
    expected, eager_seconds = _timed(eager, probe)
    if eager_seconds * pictures < WORTH_EXPORTING_SECONDS:
        return eager, eager_seconds
    prepared = _openvino(context)
    if prepared is None:
        return eager, eager_seconds
    other = _normalised(prepared.predict, context.teacher.input)
    found, seconds = _timed(other, probe)
    difference = float(np.abs(found - expected).max() / max(float(np.abs(expected).max()), 1e-9))
    if not difference <= AGREEMENT.get(prepared.precision, AGREEMENT["fp32"]) or seconds >= eager_seconds:
        return eager, eager_seconds
    log.info("the teacher runs in OpenVINO, %.1f times as fast as in PyTorch", eager_seconds / seconds)
    return other, seconds


def _timed(predict: Predict, pixels: np.ndarray) -> tuple[np.ndarray, float]:
    """The outputs and the seconds a picture of a second call."""
    predict(pixels)
    begun = time.perf_counter()
    answers = predict(pixels)
    return answers, (time.perf_counter() - begun) / len(pixels)


def _eager(context: Context) -> Predict:
    model = context.teacher.model
    capture.set_training(model, False)

    def predict(batch: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            answer: np.ndarray = model(torch.from_numpy(batch)).numpy()
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


def _turned(pixels: np.ndarray, view: int) -> np.ndarray:
    """A private copy of uint8 pictures (n, height, width, channels) in that view."""
    own = np.array(pixels)
    if view == 0:
        return own
    turned: np.ndarray = flip(torch.from_numpy(own), torch.full((len(own),), view)).numpy()
    return turned
