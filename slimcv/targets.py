"""What the words on the command line of a comparison stand for: files, and what runs them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from slimcv import bundle, models, packed, runtimes
from slimcv.errors import Rejected, SlimcvError
from slimcv.measure.threads import available
from slimcv.step import Context, InputSpec, Variant

READERS = {".onnx": ("onnxruntime", "openvino"), ".xml": ("openvino",)}
"""What runs a file as it is, by its ending; the first one where nothing else is asked for."""


@dataclass(frozen=True)
class Target:
    """One thing that can be timed: its name in the table, the file, what runs it, what it is fed.

    `packed_bytes` is the size of the packed file that it comes from. `problem` is why it cannot be timed.
    """

    name: str
    path: Path
    runtime: str
    input: InputSpec
    classes: tuple[str, ...] | None = None
    packed_bytes: int | None = None
    problem: str | None = None


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
    unpacked into `folder`, and a model is written there for eager PyTorch, or for `runtime`. A model that
    cannot be written for a runtime, or is answered otherwise there, and a file that `runtime` does not read
    come with their problem. Raises SlimcvError.
    """
    path = Path(word)
    if path.is_dir():
        return _of_bundle(path, runtime)
    if path.suffix == packed.SUFFIX:
        return _of_packed(path, folder, runtime, mean=mean, std=std)
    if path.suffix in READERS:
        return [_of_file(word, runtime, mean=mean, std=std)]
    variant = models.load(word, arch=arch, code=tuple(code), input=input, mean=mean, std=std)
    chosen = runtimes.NAMES if runtime == "all" else (runtime or "eager",)
    return [_written(f"{word} in {name}", variant, name, folder) for name in chosen]


def _of_file(
    word: str, runtime: str | None, *, mean: tuple[float, ...] | None, std: tuple[float, ...] | None
) -> Target:
    path = Path(word)
    readers = READERS[path.suffix]
    name = runtime if runtime not in (None, "all") else readers[0]
    if not path.is_file():
        raise SlimcvError(f"there is no file {path}", "give a model, an .onnx, an .xml or a bundle")
    reader = name if name in readers else readers[0]
    spec = _spec(runtimes.input_shape(path, reader), mean=mean, std=std)
    return Target(word, path, name, spec, problem=_unread(name, path.suffix, readers))


def _unread(runtime: str, what: str, readers: Sequence[str]) -> str | None:
    if runtime in readers:
        return None
    return f"{runtime} does not read {what} files (it is for {' and '.join(readers)}): give the model itself"


def _written(name: str, variant: Variant, runtime: str, folder: Path) -> Target:
    """The model in a file for one runtime, which must answer as the model does in eager PyTorch."""
    from slimcv import parity
    from slimcv.bakeoff import TOLERANCE

    count = available()
    context = Context(variant, None, folder, threads=count, train_threads=count)
    target = Target(name, folder, runtime, variant.input, variant.classes)
    try:
        if runtime == "eager":
            return replace(target, path=runtimes.write(variant, runtime, folder / runtime))
        return replace(target, path=parity.export(variant, runtime, context=context, tolerance=TOLERANCE)[0])
    except Rejected as error:
        return replace(target, problem=error.message)


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
        spec = _spec(runtimes.input_shape(model, own), mean=mean, std=std)
    else:
        fed = manifest.input
        spec = InputSpec(fed.channels, fed.height, fed.width, fed.mean, fed.std)
    classes = None if manifest is None else manifest.classes
    size_bytes = path.stat().st_size
    precision = None if manifest is None else manifest.inference_precision
    return [
        Target(
            f"{path} ({name})",
            _promised(model, precision) if precision is not None and name == "openvino" else model,
            name,
            spec,
            classes,
            packed_bytes=size_bytes,
            problem=_unread(name, packed.SUFFIX, packed.RUNTIMES),
        )
        for name in names
    ]


def _promised(model: Path, precision: str) -> Path:
    """The `.onnx` as an `.xml` that says what it is to be computed in, which ONNX cannot."""
    from slimcv.runtimes import openvino

    openvino.convert(model, model.with_suffix(".xml"), precision=precision)
    return model.with_suffix(".xml")


def _spec(
    shape: tuple[int, int, int], *, mean: tuple[float, ...] | None, std: tuple[float, ...] | None
) -> InputSpec:
    spec = InputSpec(*shape)
    return replace(spec, mean=mean or spec.mean, std=std or spec.std)
