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


def one_a_place(names: Sequence[str], best: str) -> list[str]:
    """What is shipped, the best one first: for every other place in the bundle the first of `names` there.

    Only the variant's own graph stands beside the best; a place is a file, which several runtimes may read.
    """
    chosen = {bundle.PLACES[runtime_of(best)]: best}
    for name in names:
        if not form_of(name):
            chosen.setdefault(bundle.PLACES[runtime_of(name)], name)
    return list(chosen.values())


def fed(path: Path, name: str) -> runtimes.InputFormat:
    """What the file that serves is fed, as it says itself; PyTorch's normalised planes."""
    runtime = runtime_of(name)
    return runtimes.fed(path, runtime)[1] if runtime in ("onnxruntime", "openvino") else runtimes.PLANES


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
