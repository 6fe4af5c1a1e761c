"""From pictures in any ordinary form to classes, by the file that a bundle serves."""

from __future__ import annotations

import heapq
import math
import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image

import slimcv
from slimcv import bundle, packed, runtimes
from slimcv.bundle import PLACES
from slimcv.data.decoding import Picture, decode
from slimcv.data.parallel import in_order
from slimcv.errors import SlimcvError, nearest
from slimcv.manifest import Input as InputEntry
from slimcv.manifest import Manifest, Serve
from slimcv.measure.threads import available
from slimcv.step import InputSpec

BATCH = 32
"""Pictures that are answered at once."""

Images = Picture | NDArray[np.uint8] | Sequence[Picture]
"""One picture (path, Pillow image, uint8 array (height, width) or (height, width, channels)), a sequence of
them, or a batch of them: uint8 (n, height, width, channels)."""


@dataclass(frozen=True, slots=True)
class Prediction:
    """The classes a picture most probably belongs to, the first one first.

    `labels` are names, or positions as text where the model came without names; `indices` are positions among
    the model's outputs, `probabilities` those of a softmax over all of them, 0 to 1.
    """

    labels: tuple[str, ...]
    indices: tuple[int, ...]
    probabilities: tuple[float, ...]

    @property
    def label(self) -> str:
        """The most probable class."""
        return self.labels[0]

    @property
    def probability(self) -> float:
        """That of the most probable class."""
        return self.probabilities[0]


def load(
    folder: str | os.PathLike[str],
    *,
    runtime: str | None = None,
    threads: int | None = None,
    verify: bool = False,
    wait: bool = True,
) -> Predictor:
    """The model of a bundle or a packed file, in the runtime measured to be the fastest or another.

    `threads` are by default what affinity and container allow. `verify` compares every file with the hash in
    the manifest first; a packed file always is. Without `wait` the runtime loads a bundle's file beside
    whatever is done next, and the first answer waits for it. Raises SlimcvError for a folder that is no
    bundle, a damaged file, or a runtime the bundle has no file for; without `wait`, what the runtime refuses
    is raised by the first answer.
    """
    place = Path(folder)
    if place.is_file():
        return _unpacked(place, runtime=runtime, threads=threads or available())
    manifest = bundle.read(place, verify=verify)
    name, path = served(manifest, runtime)
    count = threads or available()
    prepare = partial(runtimes.prepare, place / path, name, threads=count)
    if wait or name not in packed.RUNTIMES:  # torch keeps its number of threads for each thread
        prepared = prepare()
        return Predictor(manifest, name, lambda: prepared, threads=count)
    loading = ThreadPoolExecutor(1, thread_name_prefix="slimcv-load").submit(prepare)
    return Predictor(manifest, name, loading.result, threads=count)


def _unpacked(path: Path, *, runtime: str | None, threads: int) -> Predictor:
    """A packed file, run from memory."""
    model, manifest = packed.read(path)
    name = runtime or (manifest.serve.runtime if manifest is not None else packed.RUNTIMES[0])
    if name not in packed.RUNTIMES:
        raise SlimcvError(f"a packed model does not run in {name}", nearest(name, packed.RUNTIMES))
    if manifest is None:
        return _bare(path, model, name, threads=threads)
    prepared = runtimes.prepare_onnx(
        model, name, threads=threads, inference_precision=manifest.inference_precision
    )
    _require_fed(path, manifest.input, prepared)
    return Predictor(manifest, name, lambda: prepared, threads=threads)


def _require_fed(path: Path, said: InputEntry, prepared: runtimes.PreparedOnnx) -> None:
    """Pictures are brought to the size that the manifest says, so that must be the model's own."""
    sides = list(prepared.input_sides)[1:]
    pixels = prepared.input_format == runtimes.PIXELS
    wanted = [said.height, said.width, said.channels] if pixels else [said.channels, said.height, said.width]
    if len(sides) != len(wanted) or any(
        isinstance(side, int) and side != other for side, other in zip(sides, wanted, strict=True)
    ):
        raise SlimcvError(
            f"{path}: its manifest says pictures of {said.channels}x{said.height}x{said.width}, and its "
            f"model is fed {sides}",
            "pack the bundle again with slimcv pack",
        )


def _bare(path: Path, model: bytes, runtime: str, *, threads: int) -> Predictor:
    """A packed model that came without a manifest: it must normalise pictures itself."""
    prepared = runtimes.prepare_onnx(model, runtime, threads=threads)
    if prepared.input_format != runtimes.PIXELS:
        raise SlimcvError(
            f"{path} does not say how its pictures are to be normalised",
            "pack the bundle and not its .onnx alone, or unpack it with slimcv unpack",
        )
    channels, height, width = runtimes.input_shape(model, runtime)
    # The model normalises by itself, so that none of these is looked at.
    spec = InputSpec(channels, height, width, (0.0,) * channels, (1.0,) * channels)
    entry = InputEntry(format=runtimes.PIXELS, **asdict(spec))
    serve = Serve(path=PLACES[runtime], runtime=runtime, precision=prepared.precision, threads=threads)
    manifest = packed.PackedManifest(
        schema_version=1,
        slimcv=slimcv.__version__,
        created="",
        serve=serve,
        input=entry,
        classes=None,
        files={},
        environment={},
        threads=threads,
        seed=0,
        recipe={},
    )
    return Predictor(manifest, runtime, lambda: prepared, threads=threads)


def served(manifest: Manifest, runtime: str | None) -> tuple[str, str]:
    """The runtime that is meant and its file in the bundle.

    Machine code has to be asked for: whoever loads it runs whatever is in it. Raises SlimcvError.
    """
    if runtime is None and manifest.serve.runtime == runtimes.NATIVE:
        raise SlimcvError(
            f"the bundle serves {runtimes.NATIVE}, which is machine code that loading would run",
            f"where you trust its origin, ask for it: runtime {runtimes.NATIVE}",
        )
    if runtime is None or runtime == manifest.serve.runtime:
        return manifest.serve.runtime, manifest.serve.path
    present = [name for name, path in PLACES.items() if path in manifest.files]
    if runtime not in present:
        raise SlimcvError(f"the bundle has no file for {runtime}", nearest(runtime, present))
    return runtime, PLACES[runtime]


class Predictor:
    """A loaded bundle. May be called from several threads, which then take turns."""

    def __init__(
        self, manifest: Manifest, runtime: str, prepared: Callable[[], runtimes.Prepared], *, threads: int
    ) -> None:
        spec = manifest.input
        self.manifest = manifest
        self.runtime = runtime
        self.threads = threads
        self.input = InputSpec(spec.channels, spec.height, spec.width, spec.mean, spec.std)
        self.classes = manifest.classes
        self._prepared = prepared
        self._turn = threading.Lock()

    @property
    def precision(self) -> str:
        """What the file is computed in: "fp32", "bf16", "int8" …"""
        return self._prepared().precision

    def __call__(self, images: Images, *, top: int = 1) -> Prediction | list[Prediction]:
        """The same as `predict`."""
        return self.predict(images, top=top)

    def predict(self, images: Images, *, top: int = 1) -> Prediction | list[Prediction]:
        """The `top` most probable classes: one Prediction for one picture, else a list in the same order.

        Raises PictureError for a picture that cannot be decoded. Pillow's warnings on odd metadata are for
        the application's own filters, which hold for all of its threads and are left alone.
        """
        if _is_one(images):
            return self.ranked(self.outputs(self._pixels([cast("Picture", images)])), top)[0]
        found: list[Prediction] = []
        pictures = list(cast("Sequence[Picture]", images))
        for start in range(0, len(pictures), BATCH):
            found += self.ranked(self.outputs(self._pixels(pictures[start : start + BATCH])), top)
        return found

    def outputs(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """The model's outputs (n, classes) for pictures (n, height, width, channels) at the model's size."""
        with self._turn:
            return runtimes.answer(self._prepared(), pixels, self.input)

    def decoded(self, picture: Picture) -> NDArray[np.uint8]:
        """Pixels (height, width, channels) at the model's size. Raises PictureError."""
        spec = self.input
        shape = (spec.height, spec.width, spec.channels)
        if isinstance(picture, np.ndarray) and picture.dtype == np.uint8 and picture.shape == shape:
            return picture
        return decode(picture, spec.height, spec.width, spec.channels)

    def _pixels(self, pictures: Sequence[Picture]) -> NDArray[np.uint8]:
        if len(pictures) == 1:
            return self.decoded(pictures[0])[np.newaxis]
        return np.stack(list(in_order(self.decoded, pictures)))

    def ranked(self, outputs: NDArray[np.float32], top: int) -> list[Prediction]:
        """The `top` most probable classes of each row of outputs (n, classes)."""
        return [self._ranked(row, top) for row in outputs.tolist()]

    def _ranked(self, outputs: list[float], top: int) -> Prediction:
        """In plain Python: after a prediction the caches are cold, and NumPy takes longer for so few numbers.

        Equal outputs keep the order of the classes.
        """
        order = heapq.nlargest(max(1, top), range(len(outputs)), key=outputs.__getitem__)
        largest = outputs[order[0]]
        whole = math.fsum([math.exp(value - largest) for value in outputs])
        return Prediction(
            tuple([self._label(index) for index in order]),
            tuple(order),
            tuple([math.exp(outputs[index] - largest) / whole for index in order]),
        )

    def _label(self, index: int) -> str:
        return str(index) if self.classes is None else self.classes[index]


def _is_one(images: Images) -> bool:
    if isinstance(images, np.ndarray):
        return images.ndim < 4
    return isinstance(images, str | os.PathLike | Image.Image) or hasattr(images, "read")
