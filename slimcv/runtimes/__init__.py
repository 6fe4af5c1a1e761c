"""The programs that run a model on a CPU, one file each: write the file it runs, load it ready to predict."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import TYPE_CHECKING

from slimcv.errors import Refused, SlimcvError, nearest
from slimcv.runtimes.libraries import required
from slimcv.runtimes.prepared import PIXELS, PLANES, InputFormat, Prepared, PreparedOnnx, answer

if TYPE_CHECKING:
    from pathlib import Path

    from slimcv.step import Variant

__all__ = [
    "COMPILED",
    "EXACT",
    "NAMES",
    "NATIVE",
    "PIXELS",
    "PLANES",
    "PYTORCH",
    "InputFormat",
    "Prepared",
    "PreparedOnnx",
    "answer",
    "fed",
    "import_library",
    "input_shape",
    "load_libraries",
    "prepare",
    "prepare_onnx",
    "write",
]

NAMES = (
    "eager",
    "eager_channels_last",
    "inductor",
    "inductor_unfrozen",
    "aotinductor",
    "onnxruntime",
    "openvino",
)
COMPILED = ("inductor", "inductor_unfrozen")
"""Those that compile a checkpoint where it is loaded, at the first call and for few sizes of batches."""

PYTORCH = NAMES[:5]
"""Those that are PyTorch, to whose speed the allocator matters."""

EXACT = ("onnxruntime", "openvino")
"""Those that can compute an 8-bit graph as it is written; eager PyTorch always does."""

NATIVE = "aotinductor"
"""Its files are machine code: they are served only to whoever asks for them by name."""


def write(variant: Variant, runtime: str, folder: Path, *, name: str = "model") -> Path:
    """Write the file `runtime` runs into `folder` (made if missing) and return its path.

    A checkpoint `.pt2` for eager and inductor, a package `.pt2` of machine code for aotinductor, one `.onnx`
    for onnxruntime, `.xml` with a `.bin` beside it for openvino. ONNX and OpenVINO files are fed normalised
    planes, or pixels where `variant.details["input_format"]` says "uint8-nhwc". The file appears under its
    name only when it is complete. Raises SlimcvError where the model cannot be written or a library is
    missing.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with required(runtime):
        path: Path = _module(runtime).write(variant, folder, name=name)
    return path


def prepare(path: Path, runtime: str, *, threads: int, exact: bool = False) -> Prepared:
    """Load a file written by `write`. Raises SlimcvError for a file that is missing, Refused where the
    runtime is, or does not take it.

    With `exact`, onnxruntime and openvino compute an 8-bit graph as it is written, in floats between its
    roundings: slower, and without the 16-bit sums that overflow on CPUs without VNNI.
    Neither onnxruntime nor openvino imports torch. Eager and inductor set torch's thread count for the whole
    process.
    """
    if not path.is_file():
        raise SlimcvError(
            f"there is no file {path} for {runtime} to load", "write it first with slimcv optimize"
        )
    chosen = {"exact": True} if exact and runtime in EXACT else {}
    module = _module(runtime)
    with _refusing(runtime):
        prepared: Prepared = module.prepare(path, threads=threads, **chosen)
    return prepared


def prepare_onnx(
    model: bytes, runtime: str, *, threads: int, inference_precision: str | None = None
) -> PreparedOnnx:
    """Load an ONNX model from memory, in onnxruntime or openvino. Raises Refused where they do not take it.

    `inference_precision` is what OpenVINO is to compute floats in, by default what the CPU does best.
    """
    prepared: PreparedOnnx
    module = _module(runtime)
    with _refusing(runtime):
        if runtime == "openvino":
            prepared = module.prepare(model, threads=threads, inference_precision=inference_precision)
        else:
            prepared = module.prepare(model, threads=threads)
    return prepared


def input_shape(path: Path | bytes, runtime: str) -> tuple[int, int, int]:
    """Channels, height, width that a file for onnxruntime or openvino, or ONNX in memory, is fed.

    Raises SlimcvError.
    """
    shape, format = fed(path, runtime)
    if len(shape) != 4 or any(side is None for side in shape[1:]):
        named = "the model" if isinstance(path, bytes) else path
        raise SlimcvError(
            f"{named} is fed {shape}, not pictures of a fixed size", "export it with one input (n, c, h, w)"
        )
    sides = [int(side or 0) for side in shape[1:]]
    channels, height, width = (sides[2], *sides[:2]) if format == PIXELS else sides
    return channels, height, width


def fed(path: Path | bytes, runtime: str) -> tuple[tuple[int | None, ...], InputFormat]:
    """The sides of the input of a file for onnxruntime or openvino, None for a free one, and what it is fed.

    Raises SlimcvError.
    """
    found: tuple[tuple[int | None, ...], InputFormat]
    with required(runtime):
        found = _module(runtime).input_shape(path)
    return found


def import_library(runtime: str) -> None:
    """Import what the runtime needs, which for PyTorch takes a second or more. Raises SlimcvError."""
    with required(runtime):
        _module(runtime).import_library()


def load_libraries(runtime: str, *, threads: int) -> None:
    """Load all that the runtime loads once in a process, by running a tiny model from a file.

    What is resident afterwards is the runtime's; what a model adds to it is the model's own.
    """
    _module(runtime).load_libraries(threads=threads)


@contextmanager
def _refusing(runtime: str) -> Iterator[None]:
    """Within it what the runtime has against a file, or its absence, is Refused."""
    try:
        with required(runtime):
            yield
    except SlimcvError as error:
        raise Refused(error.message, error.hint) from error.__cause__


def _module(runtime: str) -> ModuleType:
    if runtime not in NAMES:
        raise SlimcvError(f"unknown runtime '{runtime}'", nearest(runtime, NAMES))
    return importlib.import_module(f"slimcv.runtimes.{runtime}")
