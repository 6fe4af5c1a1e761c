"""From what stands on the command line to a model, its pictures and the context of a run."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from slimcv.cli import live
from slimcv.errors import SlimcvError
from slimcv.optimization import Caching

if TYPE_CHECKING:
    from slimcv.step import Variant


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


def numbers(option: str, text: str | None) -> tuple[float, ...] | None:
    """Numbers separated by commas. Raises SlimcvError."""
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
        mean=numbers("--mean", mean) or beside.mean,
        std=numbers("--std", std) or beside.std,
    )


def caching(folder: Path | None, limit: str | None, *, none: bool) -> Caching:
    """What `--cache`, `--cache-limit` and `--no-cache` ask for. Raises SlimcvError."""
    return Caching(folder, None if limit is None else round(bytes_of("--cache-limit", limit)), keep=not none)


def tune_allocator_for(runtime: str) -> None:
    """Where it is PyTorch that predicts: this process keeps freed memory, or the log says why not."""
    from slimcv import runtimes
    from slimcv.measure import allocator

    if runtime in runtimes.PYTORCH:
        allocator.tune_or_tell()


def log_to_stderr() -> None:
    """Progress goes to stderr, one line at a time; what libraries have to say goes nowhere."""
    live.show(logging.getLogger("slimcv"), sys.stderr)
    logging.captureWarnings(True)
    warnings = logging.getLogger("py.warnings")
    warnings.handlers = [logging.NullHandler()]
    warnings.propagate = False
