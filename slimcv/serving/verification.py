"""Whether a bundle or a packed file is whole and does on this machine what it did on the one that made it."""

from __future__ import annotations

import re
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from slimcv import bundle, data, packed, runtimes, serving
from slimcv.errors import Refused, SlimcvError
from slimcv.manifest import MANIFEST, Manifest
from slimcv.measure import environment
from slimcv.measure.threads import available
from slimcv.serving import golden
from slimcv.serving.predictor import BATCH, Predictor

Outcome = Literal["passed", "failed", "noted"]

WARM_UP_CALLS, TIMED_CALLS = 5, 30
SLOW_CALL_SECONDS, SLOW_CALLS = 0.1, 10


_VERSION = "runtime version"

_NO_DOT_PRODUCTS = "this CPU has no 8-bit dot products, or may not use them"
_FOR_THIS_CPU = "slimcv optimize --target-isa avx2 makes a bundle for it"


@dataclass(frozen=True)
class Check:
    """One thing that was looked at: `noted` where nothing was asked of it."""

    name: str
    outcome: Outcome
    detail: str
    value: float | None = None
    bound: float | None = None


@dataclass(frozen=True)
class Limits:
    """What is asked for beyond wholeness and the golden samples; None where nothing is."""

    max_latency_ms: float | None = None
    min_top1: float | None = None
    min_agreement: float | None = None


@dataclass(frozen=True)
class Verification:
    """What was found. A damaged bundle or packed file is not run at all."""

    folder: str
    checks: tuple[Check, ...]
    damaged: bool

    @property
    def passed(self) -> bool:
        """Nothing failed."""
        return all(check.outcome != "failed" for check in self.checks)

    def as_json(self) -> dict[str, Any]:
        """The result of `slimcv verify --format json`."""
        return {
            "schema_version": 1,
            "bundle": self.folder,
            "passed": self.passed,
            "damaged": self.damaged,
            "checks": [asdict(check) for check in self.checks],
        }


def verify(
    folder: Path,
    limits: Limits,
    *,
    source: str | None = None,
    runtime: str | None = None,
    threads: int | None = None,
    cache: Path | None = None,
) -> Verification:
    """Compare every file with the manifest, then run the golden samples, the clock and `source`'s val/.

    `folder` may be a packed file, which is compared with the hash in it. `runtime` is by default the one that
    serves, `threads` are those the bundle was measured with, or as many as may run here. A manifest that is
    missing or changed is a failed check like any other file, and so is a runtime that does not take the file
    or is not here. Raises SlimcvError where there is no `folder`, for a runtime that there is no file for,
    or where `source` cannot be read.
    """
    if not folder.exists():
        raise SlimcvError(
            f"there is no bundle {folder}", "give the folder that slimcv optimize wrote, or a .slim file"
        )
    manifest, files = _packed(folder) if folder.is_file() else _whole(folder)
    if any(check.outcome == "failed" for check in files):
        return Verification(str(folder), tuple(files), damaged=True)
    count, cut = _threads(threads, manifest)
    checks = [*files, *cut]
    if manifest is not None:
        checks += _machine(manifest, runtime or manifest.serve.runtime)
    try:
        predictor = serving.load(folder, runtime=runtime, threads=count)
        predictor.outputs(np.zeros((1, *_picture(predictor.manifest)), np.uint8))
    except Refused as error:
        version = "; ".join(check.detail for check in checks if check.name == _VERSION)
        checks.append(Check("runtime", "failed", f"{error.message}; {version or error.hint}"))
        return Verification(str(folder), tuple(checks), damaged=False)
    manifest = predictor.manifest
    if _saturates(predictor):
        note = f"{_NO_DOT_PRODUCTS}: weights of more than 7 bits would overflow, which the samples show"
        checks.append(Check("int8", "noted", note))
    checks += _golden(folder, manifest, predictor, limits)
    checks.append(_latency(manifest, predictor, limits))
    if source is not None:
        checks.append(_top1(predictor, source, limits, cache=cache))
    elif limits.min_top1 is not None:
        raise SlimcvError("--min-top1 needs labelled pictures", "give them with --data DIR")
    return Verification(str(folder), tuple(checks), damaged=False)


def _whole(folder: Path) -> tuple[Manifest | None, list[Check]]:
    try:
        manifest = bundle.read(folder, verify=False)
    except SlimcvError as error:
        return None, [Check(f"file {MANIFEST}", "failed", f"{error.message}; {error.hint}")]
    return manifest, list(_files(folder, manifest))


def _threads(asked: int | None, manifest: Manifest | None) -> tuple[int | None, list[Check]]:
    """How many to run with, and a note where those that the bundle was measured with may not run here."""
    if asked is not None or manifest is None:
        return asked, []
    meant, allowed = manifest.serve.threads, available()
    if meant <= allowed:
        return meant, []
    detail = f"{allowed}, not the {meant} it was measured with: affinity or container allow no more here"
    return allowed, [Check("threads", "noted", detail, value=allowed)]


def _packed(path: Path) -> tuple[Manifest | None, list[Check]]:
    """The manifest in a packed file, None without one, and whether all of the file unpacks to what it was."""
    try:
        model, manifest = packed.read(path)
        packed.read_samples(path)
    except SlimcvError as error:
        return None, [Check(f"file {path.name}", "failed", f"{error.message}; {error.hint}")]
    size = path.stat().st_size
    checks = [
        Check(
            "files",
            "passed",
            f"{size:,} bytes unpack to the {len(model):,} of the model that was packed (SHA-256)",
        )
    ]
    if manifest is None:
        checks.append(
            Check("manifest", "noted", "a model packed alone: classes and normalisation not checked")
        )
    else:
        checks.append(
            Check(
                "environment", "noted", "not packed: the machine it was made on is not compared with this one"
            )
        )
    return manifest, checks


def _files(folder: Path, manifest: Manifest) -> Iterator[Check]:
    damaged = False
    for name, entry in manifest.files.items():
        try:
            bundle.check(folder / name, entry)
        except SlimcvError as error:
            damaged = True
            yield Check(f"file {name}", "failed", error.message)
    if not damaged:
        detail = f"{len(manifest.files)} files have the sizes and hashes of the manifest"
        yield Check("files", "passed", detail)


def _machine(manifest: Manifest, runtime: str) -> Iterator[Check]:
    """Differences from where the bundle was made that may explain what fails later."""
    there, here = manifest.environment, environment.describe()
    lost = [flag for flag in there.get("isa", ()) if flag not in here.isa]
    cap = environment.isa_cap()
    if lost:
        why = f"lacks, or may not use ({cap}, for OpenVINO and PyTorch)" if cap else "lacks"
        yield Check(
            "instruction sets", "noted", f"made on a CPU with {', '.join(lost)}, which this one {why}"
        )
    library = runtime if runtime in ("onnxruntime", "openvino") else "torch"
    made, now = there.get("versions", {}).get(library), here.versions.get(library)
    if made is not None and now is not None and made != now:
        age = "older" if _ordered(now) < _ordered(made) else "newer"
        yield Check(_VERSION, "noted", f"{library} {now} is {age} than {made}, which it was made with")


def _golden(folder: Path, manifest: Manifest, predictor: Predictor, limits: Limits) -> Iterator[Check]:
    samples = _samples(folder, manifest)
    if manifest.golden is None or samples is None:
        what = (
            "packed without them (slimcv pack --with-samples)" if folder.is_file() else "the bundle has none"
        )
        yield Check("golden samples", "noted", f"{what}: its answers are not compared with any")
        if limits.min_agreement is not None:
            detail = "there are no golden samples to agree with"
            yield Check("agreement", "failed", detail, bound=limits.min_agreement)
        return
    if samples.pixels.shape[1:] != _picture(manifest):
        yield Check("golden samples", "failed", "the pictures have another size than the model's input")
        return
    outputs = predictor.outputs(samples.pixels)
    if outputs.shape != samples.outputs.shape or not np.isfinite(outputs).all():
        yield Check("golden samples", "failed", "the outputs have another shape or are no numbers")
        return
    difference, bound = samples.difference(outputs), manifest.golden.tolerance
    detail = f"{len(outputs)} outputs differ by at most {difference:.2g} of the largest, {bound:g} is allowed"
    overflows = _overflows(folder, manifest, predictor, samples, difference)
    if overflows or (difference > bound and _saturates(predictor)):
        detail += f"; {_NO_DOT_PRODUCTS}, so that sums of 8-bit weights saturate: {_FOR_THIS_CPU}"
    yield Check(
        "golden samples",
        "passed" if difference <= bound and not overflows else "failed",
        detail,
        value=difference,
        bound=bound,
    )
    yield _judged("agreement", samples.agreement(outputs), "%", at_least=limits.min_agreement)


def _picture(manifest: Manifest) -> tuple[int, int, int]:
    """The shape of a picture: height, width, channels."""
    spec = manifest.input
    return spec.height, spec.width, spec.channels


def _saturates(predictor: Predictor) -> bool:
    """8-bit products are summed in 16 bits here, and the file is computed in 8 bits."""
    summed_in_16 = not environment.has_int8_instructions(runtime=predictor.runtime)
    return summed_in_16 and predictor.precision == "int8"


def _overflows(
    folder: Path, manifest: Manifest, predictor: Predictor, samples: golden.Golden, difference: float
) -> bool:
    """Whether the same file without integer kernels is much nearer to what is expected.

    Then it is sums that overflow, which a bound made wide for a network that amplifies rounding would let
    pass.
    """
    served = predictor.runtime == manifest.serve.runtime and predictor.runtime in runtimes.EXACT
    if difference <= golden.TOLERANCE["int8"] or folder.is_file() or not served or not _saturates(predictor):
        return False
    path = folder / manifest.serve.path
    exact = runtimes.prepare(path, predictor.runtime, threads=predictor.threads, exact=True)
    return samples.difference(runtimes.answer(exact, samples.pixels, predictor.input)) < difference / 2


def _samples(folder: Path, manifest: Manifest) -> golden.Golden | None:
    if folder.is_file():
        found = packed.read_samples(folder)
        return None if found is None else golden.Golden(*found)
    return None if manifest.golden is None else golden.read(folder / manifest.golden.path)


def _latency(manifest: Manifest, predictor: Predictor, limits: Limits) -> Check:
    pixels = np.random.default_rng(0).integers(0, 256, (1, *_picture(manifest)), dtype=np.uint8)
    milliseconds = 1e3 * _seconds(lambda: predictor.outputs(pixels))
    check = _judged("latency p50", milliseconds, "ms", at_most=limits.max_latency_ms)
    before = manifest.serve.latency_ms
    if before is None:
        return check
    detail = f"{check.detail}; {before:.3g} ms where it was made (threads: {predictor.threads} here)"
    return Check(check.name, check.outcome, detail, check.value, check.bound)


def _top1(predictor: Predictor, source: str, limits: Limits, *, cache: Path | None) -> Check:
    """On the validation pictures of a source, which are decoded as they were for the report."""
    split = data.load(
        source, seed=predictor.manifest.seed, classes=predictor.classes, input=predictor.input, cache=cache
    ).val
    spec = predictor.input
    pixels = split.pixels(spec.height, spec.width, spec.channels)
    right = 0
    for start in range(0, len(split), BATCH):
        chosen = slice(start, start + BATCH)
        outputs = predictor.outputs(np.asarray(pixels[chosen]))
        split.check_outputs(outputs.shape[1])
        right += int((outputs.argmax(axis=1) == split.labels[chosen]).sum())
    return _judged("top-1", 100.0 * right / len(split), "%", at_least=limits.min_top1)


def _judged(
    name: str, value: float, unit: str, *, at_least: float | None = None, at_most: float | None = None
) -> Check:
    if at_least is not None:
        met, asked = value >= at_least, f", {at_least:g} {unit} at least"
    elif at_most is not None:
        met, asked = value <= at_most, f", {at_most:g} {unit} at most"
    else:
        return Check(name, "noted", f"{value:.4g} {unit}", value=value)
    bound = at_least if at_least is not None else at_most
    return Check(name, "passed" if met else "failed", f"{value:.4g} {unit}{asked}", value=value, bound=bound)


def _seconds(call: Callable[[], object]) -> float:
    """The median of some calls after a few to warm up."""
    for _ in range(WARM_UP_CALLS):
        call()
    taken: list[float] = []
    while len(taken) < (SLOW_CALLS if taken and taken[0] > SLOW_CALL_SECONDS else TIMED_CALLS):
        begun = time.perf_counter()
        call()
        taken.append(time.perf_counter() - begun)
    return statistics.median(taken)


def _ordered(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version)[:3])
