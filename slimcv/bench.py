"""Models, files and bundles against each other: latency and throughput, memory, size, start-up, accuracy."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from slimcv import bundle, models, packed, runtimes
from slimcv.errors import SlimcvError
from slimcv.measure import environment, latency, size
from slimcv.measure.latency import Contender, ContenderFailed, Timing
from slimcv.measure.process import WorkerProcess
from slimcv.measure.variant import answers
from slimcv.step import InputSpec

if TYPE_CHECKING:
    from slimcv.data import Split

SAMPLES = 100
"""Calls timed of each: enough for a 99th percentile."""

QUICK_SAMPLES = 20
THROUGHPUT_CALLS = 5

BY_SUFFIX = {".onnx": "onnxruntime", ".xml": "openvino"}


@dataclass(frozen=True)
class Target:
    """One thing that can be timed: its name in the table, the file, what runs it, what it is fed.

    `packed_bytes` is the size of the packed file that it comes from.
    """

    name: str
    path: Path
    runtime: str
    input: InputSpec
    classes: tuple[str, ...] | None = None
    packed_bytes: int | None = None


@dataclass(frozen=True)
class Ratio:
    """How many times faster than the first target, with the bounds of the 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Row:
    """A target with so many threads and pictures at once; None is "not measured", `problem` says why.

    Milliseconds are those of one call with `batch` pictures. `streams` predictions ran side by side for
    `throughput_ips`, images a second. `model_bytes` is the peak memory over the runtime's own.
    """

    name: str
    runtime: str
    precision: str | None
    threads: int
    batch: int
    streams: int
    size_bytes: int | None = None
    p50_ms: float | None = None
    p90_ms: float | None = None
    p99_ms: float | None = None
    samples: int = 0
    spread: float | None = None
    ratio: Ratio | None = None
    throughput_ips: float | None = None
    load_seconds: float | None = None
    first_call_ms: float | None = None
    model_bytes: int | None = None
    top1: float | None = None
    problem: str | None = None


@dataclass(frozen=True)
class Comparison:
    """What `bench` found: rows by threads and batch, targets in the order they were given."""

    mode: str
    rows: tuple[Row, ...]

    def as_json(self) -> dict[str, Any]:
        """The result of `slimcv bench --format json`."""
        return {
            "schema_version": 1,
            "mode": self.mode,
            "rows": [asdict(row) for row in self.rows],
            "environment": environment.describe().as_json(),
        }


def targets(
    word: str,
    folder: Path,
    *,
    runtime: str | None = None,
    arch: str | None = None,
    code: Sequence[str] = (),
    input: str | None = None,
    mean: tuple[float, ...] | None = None,
    std: tuple[float, ...] | None = None,
) -> list[Target]:
    """What a bundle, an `.onnx`, an OpenVINO `.xml`, a packed `.slim` or a model stands for.

    A bundle is its served file, or with `runtime` all that it has for "all" or that one; a packed file is
    unpacked into `folder`, and a model is written there for eager PyTorch, or for `runtime`. Raises
    SlimcvError.
    """
    path = Path(word)
    if path.is_dir():
        return _of_bundle(path, runtime)
    if path.suffix == packed.SUFFIX:
        return _of_packed(path, folder, runtime, mean=mean, std=std)
    if path.suffix in BY_SUFFIX:
        name = runtime if runtime not in (None, "all") else BY_SUFFIX[path.suffix]
        if not path.is_file():
            raise SlimcvError(f"there is no file {path}", "give a model, an .onnx, an .xml or a bundle")
        spec = _spec(runtimes.input_shape(path, name), mean=mean, std=std)
        return [Target(word, path, name, spec)]
    variant = models.load(word, arch=arch, code=tuple(code), input=input, mean=mean, std=std)
    chosen = runtimes.NAMES if runtime == "all" else (runtime or "eager",)
    return [
        Target(
            f"{word} in {name}",
            runtimes.write(variant, name, folder / name),
            name,
            variant.input,
            variant.classes,
        )
        for name in chosen
    ]


def compare(
    found: Sequence[Target],
    *,
    threads: Sequence[int],
    batches: Sequence[int],
    streams: int | None = None,
    split: Split | None = None,
    quick: bool = False,
    seed: int = 0,
) -> Iterator[Row]:
    """Time all targets in turns for each number of threads and pictures; a row each as it is known.

    Without `streams` one prediction runs at a time (latency). With it so many processes predict side by side
    and their images a second count; the milliseconds are still those of one alone. A target that a runtime
    refuses, or that dies, is a row with its problem.
    """
    right = {target.name: _top1(target, split, seed=seed) for target in found}
    for count in threads:
        for batch in batches:
            timed, problems = _timings(found, threads=count, batch=batch, quick=quick, seed=seed)
            first = next((timed[target.name] for target in found if target.name in timed), None)
            for target in found:
                row = Row(target.name, target.runtime, None, count, batch, streams or 1)
                if target.name in problems:
                    yield replace(row, problem=problems[target.name])
                    continue
                timing = timed[target.name]
                ips = 1e3 * batch / timing.latency.p50
                if streams is not None:
                    ips = _side_by_side(target, threads=count, batch=batch, streams=streams, seed=seed)
                yield replace(
                    row,
                    precision=timing.precision,
                    size_bytes=target.packed_bytes or size.artifact_bytes(target.path),
                    p50_ms=timing.latency.p50,
                    p90_ms=timing.latency.p90,
                    p99_ms=timing.latency.p99,
                    samples=timing.latency.n,
                    spread=timing.latency.spread,
                    ratio=_ratio(first, timing),
                    throughput_ips=ips,
                    load_seconds=timing.load_seconds,
                    first_call_ms=timing.first_call_ms,
                    model_bytes=timing.peak_rss_bytes,
                    top1=right[target.name],
                )


def _of_bundle(folder: Path, runtime: str | None) -> list[Target]:
    from slimcv.serving.predictor import served

    manifest = bundle.read(folder, verify=False)
    spec = manifest.input
    input = InputSpec(spec.channels, spec.height, spec.width, spec.mean, spec.std)
    names: Sequence[str | None] = [runtime]
    if runtime == "all":
        # Machine code is run for whoever names it, never as one of many.
        places = ((name, path) for name, path in bundle.PLACES.items() if name != runtimes.NATIVE)
        names = [name for name, path in places if path in manifest.files]
    pairs = [served(manifest, name) for name in names]
    return [
        Target(f"{folder} ({name})", folder / path, name, input, manifest.classes) for name, path in pairs
    ]


def _of_packed(
    path: Path,
    folder: Path,
    runtime: str | None,
    *,
    mean: tuple[float, ...] | None,
    std: tuple[float, ...] | None,
) -> list[Target]:
    manifest = packed.read_manifest(path)
    own = packed.RUNTIMES[0] if manifest is None else manifest.serve.runtime
    names = packed.RUNTIMES if runtime == "all" else (runtime or own,)
    folder.mkdir(parents=True, exist_ok=True)
    model = packed.unpack(path, out=folder / f"{path.stem}.onnx")
    if manifest is None:
        spec = _spec(runtimes.input_shape(model, names[0]), mean=mean, std=std)
    else:
        fed = manifest.input
        spec = InputSpec(fed.channels, fed.height, fed.width, fed.mean, fed.std)
    classes = None if manifest is None else manifest.classes
    size_bytes = path.stat().st_size
    return [Target(f"{path} ({name})", model, name, spec, classes, packed_bytes=size_bytes) for name in names]


def _spec(
    shape: tuple[int, int, int], *, mean: tuple[float, ...] | None, std: tuple[float, ...] | None
) -> InputSpec:
    spec = InputSpec(*shape)
    return replace(spec, mean=mean or spec.mean, std=std or spec.std)


def _timings(
    found: Sequence[Target], *, threads: int, batch: int, quick: bool, seed: int
) -> tuple[Mapping[str, Timing], dict[str, str]]:
    """What could be timed, and why the rest could not."""
    contenders = {each.name: Contender(each.path, each.runtime, threads, each.input) for each in found}
    problems: dict[str, str] = {}
    samples = QUICK_SAMPLES if quick else SAMPLES
    while contenders:
        try:
            timings = latency.interleaved(
                contenders, samples=samples, batch=batch, memory=not quick, seed=seed
            )
        except ContenderFailed as error:
            problems[error.contender] = error.message
            del contenders[error.contender]
        else:
            return timings, problems
    return {}, problems


def _ratio(first: Timing | None, timing: Timing) -> Ratio | None:
    if first is None:
        return None
    found = latency.ratio(first, timing)
    return Ratio(found.value, found.low, found.high)


def _side_by_side(target: Target, *, threads: int, batch: int, streams: int, seed: int) -> float:
    """Images a second of so many processes that predict at the same time."""
    contender = Contender(target.path, target.runtime, threads, target.input)
    with ExitStack() as stack:
        workers = [
            stack.enter_context(WorkerProcess(f"{target.name}, stream {number}", contender))
            for number in range(1, streams + 1)
        ]
        for worker in workers:
            worker.post("start", runtime=target.runtime, threads=threads, allocator=contender.allocator)
            worker.post("load", path=str(target.path), shape=list(target.input.shape), seed=seed)
            worker.post("warm", batch=batch, calls=3, seconds=0.3)
        alone = [float(worker.answers()[-1]["call_ms"]) for worker in workers]
        calls = max(THROUGHPUT_CALLS, round(1000.0 / max(alone)))
        begun = time.perf_counter()
        for worker in workers:
            worker.post("time", batch=batch, calls=calls, discard=0)
        for worker in workers:
            worker.answers()
        return streams * calls * batch / (time.perf_counter() - begun)


def _top1(target: Target, split: Split | None, *, seed: int) -> float | None:
    if split is None:
        return None
    from slimcv.measure.threads import available

    try:
        return answers(
            target.path, target.runtime, target.input, split=split, threads=available(), seed=seed
        ).top1
    except SlimcvError:
        return None  # What the runtime has against the file is said where it is timed.
