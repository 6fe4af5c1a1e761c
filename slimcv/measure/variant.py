"""One variant, measured: its answers on pictures, and its figures as one Measurement."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from slimcv import runtimes
from slimcv.data import synthetic
from slimcv.measure import accuracy, size
from slimcv.measure.macs import count
from slimcv.results import Measurement, Paired

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from slimcv.data import Split
    from slimcv.measure.latency import Timing
    from slimcv.step import InputSpec, Variant

SYNTHETIC_PICTURES = 64


@dataclass(frozen=True)
class Answers:
    """What a variant said to a fixed list of pictures, or to synthetic ones, which have no labels.

    `top1` and `top5` are percentages, `right` (n,) says which predictions are; None without labels.
    """

    predictions: NDArray[np.int64]
    top1: float | None = None
    top5: float | None = None
    right: NDArray[np.bool_] | None = None

    def agreement(self, other: Answers) -> float:
        """The percentage of pictures for which both name the same class."""
        return 100.0 * float(np.mean(self.predictions == other.predictions))

    def against(self, original: Answers) -> Paired | None:
        """Top-1 against the original's on the same pictures; None without labels."""
        if self.right is None or original.right is None:
            return None
        lost = int(np.sum(original.right & ~self.right))
        gained = int(np.sum(self.right & ~original.right))
        return Paired.counted(lost, gained, len(self.right))


def computed_exactly(variant: Variant, path: Path) -> bool:
    """Whether a file of `variant` must not be asked on this CPU's integer kernels, whose sums overflow.

    The step that made the integers says so where the CPU that is to serve has no such kernels.
    """
    form = next((name for name, file in variant.artifacts.items() if file == path and ":" in name), None)
    own = "quantize_int8" if variant.precision == "int8" else None
    made = variant.details.get(form or own or "") or {}
    return bool(made.get("computed_exactly"))


def answers(
    path: Path,
    runtime: str,
    input: InputSpec,
    *,
    split: Split | None,
    threads: int,
    seed: int,
    exact: bool = False,
    batch: int | None = None,
) -> Answers:
    """Run the file through its own runtime over `split`, or over synthetic pictures where there is none.

    `exact` is that of `slimcv.runtimes.prepare`, `batch` that of `slimcv.measure.accuracy.predict_pixels`.
    """
    prepared = runtimes.prepare(path, runtime, threads=threads, exact=exact)
    if split is None:
        pixels = synthetic.pictures(SYNTHETIC_PICTURES, input, seed=seed)
        return Answers(accuracy.predict_pixels(prepared, pixels, input, batch=batch).argmax(axis=1))
    found = accuracy.evaluate(prepared, split, input, batch=batch)
    return Answers(found.predictions, found.top1, found.top5, found.right)


def measurement(
    variant: Variant,
    *,
    runtime: str,
    size_bytes: int,
    threads: int,
    macs: int | None = None,
    timing: Timing | None = None,
    given: Answers | None = None,
    original: Answers | None = None,
) -> Measurement:
    """Gather the figures of `variant` as `runtime` runs it.

    `original` are the original's answers, for agreement; `macs` are counted where they are not given.
    """
    return Measurement(
        parameters=size.parameters(variant.model),
        buffers=size.buffers(variant.model),
        macs=count(variant.model, variant.input) if macs is None else macs,
        size_bytes=size_bytes,
        latency_ms=timing.latency if timing else None,
        runtime=runtime,
        precision=timing.precision if timing else variant.precision,
        threads=threads,
        throughput_ips=timing.throughput_ips if timing else None,
        peak_rss_bytes=timing.peak_rss_bytes if timing else None,
        top1=given.top1 if given else None,
        top5=given.top5 if given else None,
        agreement=given.agreement(original) if given and original else None,
        train_seconds_per_epoch=(variant.details.get("finetune") or {}).get("seconds_per_epoch"),
        int8_mac_share=variant.int8_mac_share,
        paired=given.against(original) if given and original else None,
        synthetic_pictures=len(given.predictions) if given and given.top1 is None else None,
    )
