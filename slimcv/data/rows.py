"""Several pictures decoded into the rows of one array, with a word on each that cannot be."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from slimcv.data.decoding import PictureError, decode
from slimcv.data.sources import MISSING, Sample

Size = tuple[int, int, int]
"""Height, width and channels."""


@dataclass(frozen=True, slots=True)
class Fault:
    """Why a picture has no pixels. One that is `passing` says nothing of the picture: it may be back soon."""

    reason: str
    passing: bool


def decode_rows(samples: Iterable[Sample], rows: np.ndarray) -> dict[int, Fault]:
    """Decode each sample into its row of uint8 (n, height, width, channels).

    A row whose picture cannot be read is left as it is; its position and the fault are returned.
    """
    _, height, width, channels = rows.shape
    faults = {}
    for position, sample in enumerate(samples):
        try:
            rows[position] = decode(sample.picture, height, width, channels)
        except PictureError as error:
            # The error itself is not kept: its traceback would hold the whole picture.
            faults[position] = Fault(error.reason, error.unreachable and sample.identity != MISSING)
    return faults
