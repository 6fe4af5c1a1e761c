"""Many files answered in order, a batch at a time; one that cannot be read is a row with its error."""

from __future__ import annotations

import glob
import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from slimcv.data.decoding import PictureError
from slimcv.data.parallel import AHEAD, in_order
from slimcv.data.sources import picture_files
from slimcv.errors import SlimcvError
from slimcv.measure.threads import available
from slimcv.serving.predictor import BATCH, Prediction, Predictor

log = logging.getLogger("slimcv")

_TOGETHER = 8
"""Files that one thread reads in one go: handing over each by itself takes a tenth of its decoding."""

_AHEAD_BYTES = 32 << 20
"""Pixels that may wait to be answered: decoding goes on while the runtime loads the model."""


@dataclass(frozen=True, slots=True)
class Row:
    """A file and either what it shows or why it cannot be read."""

    path: str
    prediction: Prediction | None
    error: str | None = None


def found(words: Iterable[str], lines: Iterable[str] = ()) -> list[str]:
    """The files that `words` mean: pictures, folders with all pictures in them, globs, `-` for `lines`.

    A file that is named itself, or that a glob matches, is taken whatever its name; a folder that a glob
    matches stands for its pictures. A word without any picture is logged. Raises SlimcvError where all are.
    """
    paths: list[str] = []
    empty: list[str] = []
    for word in words:
        meant = _meant(word, lines)
        paths += meant
        if not meant:
            empty.append(word)
    for word in empty if paths else ():
        log.warning("%s: no picture there", word)
    if not paths:
        raise SlimcvError(
            "there are no pictures to answer for",
            "name files, folders or globs, or - to read a list from stdin",
        )
    return paths


def _meant(word: str, lines: Iterable[str]) -> list[str]:
    if word == "-":
        return [line.strip() for line in lines if line.strip()]
    if Path(word).is_dir():
        return list(picture_files(word))
    if not glob.has_magic(word) or Path(word).exists():
        return [word]
    matched = sorted(glob.glob(word, recursive=True))  # noqa: PTH207 -- a pattern, absolute or not
    files = (picture_files(path.rstrip("/")) if Path(path).is_dir() else [path] for path in matched)
    # A pattern with ** matches a folder and what is in it too.
    return list(dict.fromkeys(chain.from_iterable(files)))


def answered(
    predictor: Predictor, paths: Iterable[str], *, top: int = 1, batch: int = BATCH
) -> Iterator[Row]:
    """A row for each path in their order. Files are decoded on all cores while the model loads and works."""

    def read(path: str) -> tuple[str, NDArray[np.uint8] | str]:
        try:
            return path, predictor.decoded(path)
        except PictureError as error:
            return path, error.reason

    def read_some(some: tuple[str, ...]) -> list[tuple[str, NDArray[np.uint8] | str]]:
        return [read(path) for path in some]

    spec = predictor.input
    together = _TOGETHER * spec.height * spec.width * spec.channels
    ahead = max(AHEAD, _AHEAD_BYTES // (together * available()))
    pictures = chain.from_iterable(in_order(read_some, _groups(paths), ahead=ahead))
    while some := list(islice(pictures, batch)):
        yield from _rows(predictor, some, top)


def _groups(paths: Iterable[str]) -> Iterator[tuple[str, ...]]:
    left = iter(paths)
    while some := tuple(islice(left, _TOGETHER)):
        yield some


def _rows(predictor: Predictor, some: list[tuple[str, NDArray[np.uint8] | str]], top: int) -> Iterator[Row]:
    sound = [pixels for _, pixels in some if not isinstance(pixels, str)]
    predictions = iter(predictor.ranked(predictor.outputs(np.stack(sound)), top) if sound else ())
    for path, pixels in some:
        if isinstance(pixels, str):
            yield Row(path, None, pixels)
        else:
            yield Row(path, next(predictions))
