"""Golden samples: a few pictures and what the shipped file said to them on the machine that made it."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from slimcv import runtimes
from slimcv.data import Split, synthetic
from slimcv.errors import SlimcvError
from slimcv.step import InputSpec
from slimcv.writing import ZIP_FAULTS

COUNT = 16

TOLERANCE = {"fp32": 1e-3, "bf16": 5e-2, "fp16": 1e-2, "int8": 1e-1}
"""Largest difference relative to the largest output. Kernels of another CPU add up in another order, and an
8-bit value that lies between two steps may fall to either side; 8-bit sums that overflow differ by more."""

_LARGEST_OVER_NORM = 2.0
"""How many times as far a single output may move as the outputs' norm does, each as a share of the largest
and of the norm: `TOLERANCE` of int8 over `slimcv.parity.INT8_TOLERANCE`."""


def tolerance(precision: str, *, moved: float = 0.0) -> float:
    """How far outputs may differ on another CPU, relative to the largest.

    A network that amplifies rounding differs by more from one sound CPU to another: in 8 bits by as much as
    its integers `moved` the outputs, as a share of their norm (see `slimcv.parity.moved_by_rounding`).
    """
    allowed = TOLERANCE[precision]
    return max(allowed, _LARGEST_OVER_NORM * moved) if precision == "int8" else allowed


@dataclass(frozen=True)
class Golden:
    """`pixels` uint8 (n, height, width, channels) at the model's size, `outputs` float32 (n, classes)."""

    pixels: NDArray[np.uint8]
    outputs: NDArray[np.float32]

    def packed(self) -> bytes:
        """The contents of an .npz file, the same for the same samples."""
        file = io.BytesIO()
        np.savez_compressed(file, pixels=self.pixels, outputs=self.outputs)
        return file.getvalue()

    def difference(self, outputs: NDArray[np.float32]) -> float:
        """The largest, relative to the largest expected output."""
        largest = max(float(np.abs(self.outputs).max()), 1e-9)
        return float(np.abs(outputs - self.outputs).max()) / largest

    def agreement(self, outputs: NDArray[np.float32]) -> float:
        """Percentage of the samples with the expected class."""
        return 100.0 * float(np.mean(outputs.argmax(axis=1) == self.outputs.argmax(axis=1)))


def made(
    path: Path,
    runtime: str,
    input: InputSpec,
    *,
    split: Split | None,
    threads: int,
    seed: int,
    exact: bool = False,
) -> Golden:
    """The first pictures of a split, synthetic ones where it has too few, and what a file says to them.

    `exact` is that of `slimcv.runtimes.prepare`.
    """
    pixels = np.empty((0, input.height, input.width, input.channels), np.uint8)
    if split is not None:
        pixels = np.asarray(split.pixels(input.height, input.width, input.channels)[:COUNT])
    pixels = np.concatenate([pixels, synthetic.pictures(COUNT - len(pixels), input, seed=seed)])
    prepared = runtimes.prepare(path, runtime, threads=threads, exact=exact)
    return Golden(pixels, runtimes.answer(prepared, pixels, input))


def read(path: Path) -> Golden:
    """The samples of a bundle. Raises SlimcvError for a file that does not hold them."""
    try:
        with np.load(path, allow_pickle=False) as arrays:
            golden = Golden(arrays["pixels"], arrays["outputs"])
    except (*ZIP_FAULTS, ValueError, KeyError) as error:
        raise SlimcvError(
            f"{path}: holds no golden samples ({error})", "copy the whole bundle again"
        ) from error
    if (
        not len(golden.pixels)
        or golden.pixels.dtype != np.uint8
        or golden.pixels.ndim != 4
        or golden.outputs.ndim != 2
    ):
        raise SlimcvError(f"{path}: holds no golden samples", "copy the whole bundle again")
    return golden
