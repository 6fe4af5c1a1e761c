"""Which files go into the bundle, and where."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from slimcv import bundle, runtimes
from slimcv.bakeoff import form_of, runtime_of
from slimcv.measure import latency
from slimcv.results import Artifact

if TYPE_CHECKING:
    from slimcv.run import Run
    from slimcv.step import Variant


def one_a_runtime(names: Sequence[str], best: str) -> list[str]:
    """What is shipped: the best one, and for every other runtime that of the variant's own graph."""
    return [best, *(name for name in names if not form_of(name) and name != runtime_of(best))]


def placed(
    run: Run, variant: Variant, files: dict[str, Path], timings: dict[str, latency.Timing], *, number: int
) -> list[Artifact]:
    """Copy every artifact to its place in the bundle; beside one of the own graph a `model.pt2` too."""
    bundle.clear(run.folder)
    parts: list[Artifact] = []
    for name, path in files.items():
        parts += bundle.place(
            run.folder,
            path,
            runtime_of(name),
            precision=timings[name].precision,
            latency_ms=timings[name].latency.p50,
            spread=timings[name].latency.spread,
            max_abs_diff=(variant.details.get(name) or {}).get("max_abs_diff"),
        )
    places = {bundle.PLACES[runtime_of(name)] for name in files}
    if bundle.PLACES["eager"] not in places and not all(map(form_of, files)):
        checkpoint = runtimes.write(variant, "eager", run.workdir / f"{number:03d}-ship")
        parts += bundle.place(run.folder, checkpoint, "eager", precision=variant.precision)
    return parts
