"""From what stands on the command line to a model, its pictures and the context of a run."""

from __future__ import annotations

import logging
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from slimcv.cli import live
from slimcv.errors import SlimcvError

if TYPE_CHECKING:
    from slimcv.step import Context, Variant


def seconds_of(option: str, text: str) -> float:
    """Seconds of a duration such as 10m. Raises SlimcvError."""
    from slimcv.train.settings import seconds

    try:
        return seconds(text)
    except ValueError as error:
        raise SlimcvError(f"{option} {text}: {error}", "for example 90s, 10m or 1h30m") from error


def bytes_of(option: str, text: str) -> float:
    """Bytes of a size such as 4GB. Raises SlimcvError."""
    from slimcv.train.settings import size_bytes

    try:
        return size_bytes(text)
    except ValueError as error:
        raise SlimcvError(f"{option} {text}: {error}", "for example 500MB or 20GB") from error


def _numbers(option: str, text: str | None) -> tuple[float, ...] | None:
    if text is None:
        return None
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError as error:
        raise SlimcvError(
            f"{option} {text}: not numbers separated by commas", "for example 0.5,0.5,0.5"
        ) from error


def load_model(
    model: str,
    *,
    arch: str | None,
    code: list[str] | None,
    shape: str | None,
    mean: str | None,
    std: str | None,
    beside: Any,
) -> Variant:
    """The model that the command line and the sidecar beside it describe. Raises SlimcvError."""
    from slimcv import models

    return models.load(
        model,
        arch=arch,
        code=tuple(code or ()),
        input=shape or beside.input,
        classes=beside.classes,
        mean=_numbers("--mean", mean) or beside.mean,
        std=_numbers("--std", std) or beside.std,
    )


@dataclass(frozen=True)
class Caching:
    """Where decoded pictures are kept, at most how many bytes of them, and whether after this run."""

    folder: Path | None
    limit: int | None
    keep: bool


def caching(folder: Path | None, limit: str | None, *, none: bool) -> Caching:
    """What `--cache`, `--cache-limit` and `--no-cache` ask for. Raises SlimcvError."""
    return Caching(folder, None if limit is None else round(bytes_of("--cache-limit", limit)), keep=not none)


def make_context(
    variant: Variant,
    data: str | None,
    folder: Path,
    *,
    threads: int | None,
    seed: int,
    kept: Caching,
    classes: tuple[str, ...] | None,
) -> Context:
    """The model as teacher with its pictures, read and checked against its outputs. Raises SlimcvError."""
    from dataclasses import replace

    import torch

    from slimcv import data as pictures
    from slimcv.measure.threads import available
    from slimcv.step import Context

    torch.set_num_threads(available())
    dataset = None
    if data is not None:
        dataset = pictures.load(
            data,
            seed=seed,
            classes=variant.classes or classes,
            input=variant.input,
            cache=kept.folder,
            cache_limit=kept.limit,
            keep=kept.keep,
        )
        with torch.no_grad():
            outputs = variant.model(torch.zeros(2, *variant.input.shape)).shape[1]
        dataset.check_outputs(outputs)
        variant = replace(variant, classes=dataset.classes)
    return Context(
        teacher=variant,
        data=dataset,
        workdir=folder / "work",
        threads=threads or available(),
        train_threads=available(),
        seed=seed,
    )


def log_to_stderr() -> None:
    """Progress goes to stderr, one line at a time; what libraries have to say goes nowhere."""
    live.show(logging.getLogger("slimcv"), sys.stderr)
    logging.captureWarnings(True)
    warnings = logging.getLogger("py.warnings")
    warnings.handlers = [logging.NullHandler()]
    warnings.propagate = False
