"""Many files answered in order, a batch at a time; one that cannot be read is a row with its error."""

from __future__ import annotations

import glob
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from slimcv.data.decoding import PictureError, quiet_pillow
from slimcv.data.parallel import AHEAD, in_order
from slimcv.data.sources import picture_files
from slimcv.errors import SlimcvError
from slimcv.measure.threads import available
from slimcv.serving.predictor import BATCH, Prediction, Predictor

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

    A file that is named itself is taken whatever its name. Raises SlimcvError where nothing is meant.
    """
    paths: list[str] = []
    for word in words:
        if word == "-":
            paths += [line.strip() for line in lines if line.strip()]
        elif Path(word).is_dir():
            paths += picture_files(word)
        elif glob.has_magic(word) and not Path(word).exists():
            paths += sorted(glob.glob(word, recursive=True))  # noqa: PTH207 -- a pattern, absolute or not
        else:
            paths.append(word)
    if not paths:
        raise SlimcvError(
            "there are no pictures to answer for",
            "name files, folders or globs, or - to read a list from stdin",
        )
    return paths


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
    with quiet_pillow():
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
