"""What the teacher says about every training picture and its mirror images: asked once, kept on disk.

A student that sees another crop than its teacher did learns from inconsistent targets (Beyer et al. 2022,
"Knowledge distillation: A good teacher is patient and consistent"). Mirror images are few enough to ask for
all of them beforehand; for other changes there is slimcv.train.live.
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
from torch import Tensor
from torch.fx import GraphModule

from slimcv.data import Split
from slimcv.data.augmentation import flip
from slimcv.data.batches import gathered
from slimcv.step import Context
from slimcv.train import asking
from slimcv.train.asking import BATCH, Form
from slimcv.train.processes import group as processing
from slimcv.train.processes.group import Order
from slimcv.train.progress import Progress
from slimcv.train.saving import complete

SHARE_OF_TIME = 0.5
"""The part of the remaining time that the teacher may have."""

log = logging.getLogger("slimcv")
Noted = Callable[[float, int], None]
"""Is told the seconds that asking took so far, and about how many pictures; all answers are on disk then."""


@dataclass(frozen=True)
class Targets:
    """The teacher's outputs for each view that was asked for: view to float32 (n, classes), mapped from disk.

    A view is a choice of slimcv.data.augmentation.flip. `top1` is the teacher's percentage on the training
    pictures, `seconds` what asking about `asked` pictures took and `form` what ran the teacher: 0, 0 and None
    where all was cached.
    """

    logits: dict[int, np.ndarray]
    top1: float
    seconds: float
    asked: int = 0
    form: str | None = None

    def of(self, index: np.ndarray, view: np.ndarray) -> np.ndarray:
        """Float32 (len(index), classes) for pictures in those views; a view not asked for has view 0's."""
        found: np.ndarray = np.asarray(self.logits[0][index])
        for known, logits in self.logits.items():
            chosen = view == known
            if known and chosen.any():
                found[chosen] = logits[index[chosen]]
        return found


def affordable(
    context: Context, split: Split, *, views: tuple[int, ...], seconds_left: float, form: Form | None = None
) -> tuple[tuple[int, ...], Form | None]:
    """The views that there is time for, and the form to ask in; no views where there is none for view 0.

    What is on disk costs nothing, and where it is all that needs no form. The rest is asked about in `form`,
    by default in the fastest, as far as it takes no more than half of `seconds_left`.
    """
    missing = _missing(_files(context, views), len(split))
    if not missing:
        return views, None
    form = form or asking.fastest(context, split, pictures=len(missing) * len(split))
    seconds_each = form.seconds_each / processing.of(context).count
    most = SHARE_OF_TIME * seconds_left / max(seconds_each * len(split), 1e-9)
    if most < len(missing):
        left_out = missing[max(0, int(most)) :]
        asked = len(missing) - len(left_out)
        log.info("too little time to ask the teacher about %d views: %d asked", len(views), asked)
        views = tuple(view for view in views if view not in left_out)
    return (views if 0 in views else ()), form


def targets(
    context: Context,
    split: Split,
    *,
    views: tuple[int, ...],
    form: Form | None = None,
    every: float = 60.0,
    noted: Noted | None = None,
) -> Targets:
    """Ask `context.teacher` about `split` at its own input size, or read from disk what it said before.

    It is asked in `form`, by default in the fastest, about all `views`, view 0 among them. What was answered
    is on disk after `every` so many seconds, when `noted` is told, and not asked again. Several processes ask
    about a share each. Raises SlimcvError where the work folder cannot be written.
    """
    files = _files(context, views)
    missing = _missing(files, len(split))
    seconds, asked, begun = 0.0, 0, time.perf_counter()

    def kept(pictures: int) -> None:
        nonlocal seconds, asked
        seconds, asked = time.perf_counter() - begun, asked + pictures
        if noted is not None:
            noted(seconds, asked)

    if missing:
        form = form or asking.fastest(context, split, pictures=len(missing) * len(split))
        for number, view in enumerate(missing, start=1):
            name = f"teacher, view {number} of {len(missing)}"
            _ask(context, split, form, files[view], view=view, name=name, every=every, kept=kept)
        log.info("the teacher answered for %d pictures in %.1f s (%s)", asked, seconds, form.name)
    logits = {view: np.load(path, mmap_mode="r", allow_pickle=False) for view, path in files.items()}
    top1 = 100.0 * float(np.mean(logits[0].argmax(axis=1) == split.labels))
    return Targets(logits, top1, seconds, asked, form.name if missing and form else None)


def answered(context: Context, split: Split, *, views: tuple[int, ...]) -> bool:
    """Whether all that the teacher says in these views is on disk."""
    return not _missing(_files(context, views), len(split))


def fingerprint(model: GraphModule) -> str:
    """A SHA-256 of the computation and of every parameter and buffer, in whatever order modules stand."""
    digest = hashlib.sha256(model.code.encode())
    for name, value in sorted(model.state_dict().items()):
        digest.update(f"\0{name} {tuple(value.shape)} {value.dtype}\0".encode())
        digest.update(value.detach().contiguous().view(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def _files(context: Context, views: tuple[int, ...]) -> dict[int, Path]:
    """Where each view's outputs are kept; the name tells teacher, its input and the data apart."""
    data = context.data.fingerprint if context.data is not None else ""
    parts = f"{fingerprint(context.teacher.model)} {context.teacher.input!r} {data}"
    key = hashlib.sha256(parts.encode()).hexdigest()[:24]
    return {view: context.workdir / "teacher" / f"{key}-view{view}.npy" for view in views}


def _missing(files: dict[int, Path], count: int) -> list[int]:
    """The views that are not answered for yet."""
    return [view for view, path in files.items() if _read(path, count) is None]


def _part(path: Path) -> Path:
    """Where the first answers of a view are kept until it is complete."""
    return path.with_name(f"{path.stem}.part.npy")


def _read(path: Path, count: int) -> np.ndarray | None:
    array = _read_any(path)
    return array if array is not None and len(array) == count else None


def _read_any(path: Path) -> np.ndarray | None:
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError):
        return None
    return array if isinstance(array, np.ndarray) and array.ndim == 2 else None


def _write(path: Path, logits: np.ndarray) -> None:
    with complete(path) as partial, partial.open("wb") as file:
        np.save(file, logits, allow_pickle=False)


def together(context: Context, form: Form, found: Tensor, count: int, *, view: int) -> np.ndarray:
    """The outputs for `count` pictures, of which `found`, uint8 pixels, are this process's share."""
    processes = processing.of(context)
    pictures = flip(found, torch.full((len(found),), view)).numpy()
    if processes.count == 1:
        return form.predict(pictures)
    answers = torch.zeros(count, len(context.data.classes if context.data else ()))
    if len(found):
        answers[torch.from_numpy(processes.part(np.arange(count)))] = torch.from_numpy(form.answers(pictures))
    processes.add_up([answers])
    return answers.numpy()


def _ask(
    context: Context,
    split: Split,
    form: Form,
    path: Path,
    *,
    view: int,
    name: str,
    every: float,
    kept: Callable[[int], None],
) -> None:
    """Write the outputs for all pictures in one view, in order; the first of them may be on disk.

    `kept` is told how many more of them are, each time.
    """
    before = _read_any(_part(path))
    answers = [] if before is None else [np.array(before)]
    first = done = 0 if before is None else len(before)
    processes = processing.of(context)
    pixels = asking.teacher_pixels(context, split)
    starts = range(first, len(pixels), BATCH * processes.count)
    wholes = [np.arange(start, min(start + starts.step, len(pixels))) for start in starts]
    parts = (processes.part(whole) for whole in wholes)
    begun = written = time.perf_counter()
    noted, progress = first, Progress()
    for index, (_, found) in zip(wholes, gathered(pixels, parts), strict=True):
        processes.order(Order.ASK, asking.FORMS.index(form.name), view, index[0], index[-1] + 1)
        answers.append(together(context, form, found, len(index), view=view))
        done = int(index[-1]) + 1
        if progress.due:
            speed = (done - first) / (time.perf_counter() - begun)
            left = (len(pixels) - done) / speed
            text = f"{name}: {done}/{len(pixels)}, {speed:.0f} images/s, ETA {left:.0f} s"
            progress.tell(text, share=done / len(pixels))
        if time.perf_counter() - written >= every:
            _write(_part(path), np.concatenate(answers))
            kept(done - noted)
            noted, written = done, time.perf_counter()
    _write(path, np.concatenate(answers).astype(np.float32, copy=False))
    _part(path).unlink(missing_ok=True)
    kept(done - noted)
