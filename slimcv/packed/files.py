"""Packed files on the disk: written, unpacked, read into memory."""

from __future__ import annotations

import io
import logging
import mmap
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

from slimcv.bundle import PLACES
from slimcv.errors import SlimcvError
from slimcv.measure.size import artifact_bytes
from slimcv.packed import manifest as manifests
from slimcv.packed import packing, samples, stripping
from slimcv.packed.damage import Damaged, Newer, TooLarge
from slimcv.packed.manifest import PackedManifest
from slimcv.packed.reading import Reader
from slimcv.packed.samples import Samples
from slimcv.packed.sizes import TOLD_BYTES, Sizes, sizes_of, unreadable
from slimcv.packed.wire import NotOnnx
from slimcv.writing import complete

SUFFIX = ".slim"
_ZIP = b"PK\x03\x04"
_UNZIP = "a zipped bundle has to be unzipped first: name the folder that was in it"

LARGEST_PACKED_BYTES, LARGEST_ZIPPED_BYTES = 2**28, 2**30
"""Of an ONNX file and an original, so that comparing them takes no more than a few minutes."""

SHORT_PACKED_BYTES, SHORT_ZIPPED_BYTES = 2**22, 2**26
"""The same for a few seconds: a core packs two megabytes of INT8 weights a second and zips thirty."""

log = logging.getLogger("slimcv")


@dataclass(frozen=True)
class Packed:
    """What packing came to. `ways` counts tensors by how they are written.

    `sample_bytes` of `bytes` are golden samples.
    """

    path: str
    bytes: int
    model: Sizes
    original: Sizes | None
    stripped_bytes: int | None
    graph_bytes: int
    manifest_bytes: int
    tensor_bytes: int
    sample_bytes: int
    ways: dict[str, int]

    def as_json(self) -> dict[str, Any]:
        """The result of `slimcv pack --format json`."""
        return {"schema_version": 1, **asdict(self)}


@dataclass(frozen=True)
class Compared:
    """Bytes of the original, None where it is too large to zip, of an ONNX file, and of that one packed."""

    original: Sizes | None
    onnx: Sizes
    packed_bytes: int


def pack(
    source: Path,
    *,
    out: Path | None = None,
    original: Path | None = None,
    strip: bool = False,
    with_samples: bool = False,
) -> Packed:
    """Write a bundle or an `.onnx` file as one packed file, by default beside it.

    What is written is unpacked again and compared first. `strip` leaves out what no runtime computes with;
    unpacking then gives that smaller ONNX file. `with_samples` packs a bundle's golden samples too. Of
    `original` only the bytes are counted. What takes long is logged. Raises SlimcvError.
    """
    folder = source.is_dir()
    manifest = manifests.of_bundle(source, with_samples=with_samples) if folder else None
    path = source / PLACES["onnxruntime"] if folder else source
    own = (
        source.resolve().with_name(f"{source.resolve().name}{SUFFIX}")
        if folder
        else source.with_suffix(SUFFIX)
    )
    target = out or own
    if target.exists() and path.exists() and target.samefile(path):
        raise SlimcvError(f"{target} is the model itself", "name another --out")
    counted = None if original is None else sizes_of(original)
    model_sizes = sizes_of(path)
    if model_sizes.bytes > TOLD_BYTES:
        log.info(
            "packing %s, %.0f MB, and comparing what comes out again", path.name, model_sizes.bytes / 1e6
        )
    with _mapped(path) as model:
        given = memoryview(stripping.stripped(bytes(model))) if strip else model
        content = packing.packed(given, manifests.written(manifest), _samples(source, manifest))
        _require_same(content.written, given)
        stripped_bytes = len(given) if strip else None
        del given
    with _written(target) as stream:
        stream.write(content.written)
    return Packed(
        path=str(target),
        bytes=len(content.written),
        model=model_sizes,
        original=counted,
        stripped_bytes=stripped_bytes,
        graph_bytes=content.graph_bytes,
        manifest_bytes=content.manifest_bytes,
        tensor_bytes=content.tensor_bytes,
        sample_bytes=content.sample_bytes,
        ways=content.ways,
    )


def compared(onnx: Path, *, original: Path, short: bool = False) -> Compared | str:
    """What packing would come to, or why that was not tried.

    Nothing is written, and no manifest or samples are counted. `short` asks for what takes a few seconds at
    most. Raises SlimcvError.
    """
    if not onnx.is_file():
        return f"there is no {onnx.name}"
    size = onnx.stat().st_size
    if size > (SHORT_PACKED_BYTES if short else LARGEST_PACKED_BYTES):
        wait = "more than a few seconds" if short else "minutes"
        return f"for the {size / 1e6:,.0f} MB of {onnx.name} that takes {wait}; slimcv pack does it"
    zippable = artifact_bytes(original) <= (SHORT_ZIPPED_BYTES if short else LARGEST_ZIPPED_BYTES)
    with _mapped(onnx) as model:
        found = len(packing.packed(model, b"").written)
    return Compared(sizes_of(original) if zippable else None, sizes_of(onnx), found)


def unpack(source: Path, *, out: Path | None = None, limit: int | None = None) -> Path:
    """Write the ONNX file that was packed, tensor by tensor; its path, by default beside the packed one.

    `limit` is the most bytes it may have, by default what docs/format.md says. Raises SlimcvError.
    """
    target = out or source.with_suffix(".onnx")
    if target.exists() and source.exists() and target.samefile(source):
        raise SlimcvError(f"{target} is the packed model itself", "name another --out")
    with _opened(source, limit=limit) as reader, _written(target) as stream:
        for piece in reader.pieces():
            stream.write(piece)
    return target


def read(source: Path, *, limit: int | None = None) -> tuple[bytes, PackedManifest | None]:
    """The ONNX file and the manifest, None where a bare ONNX file was packed. Raises SlimcvError."""
    with _opened(source, limit=limit) as reader:
        model = io.BytesIO()
        for piece in reader.pieces():
            model.write(piece)
        return model.getvalue(), _manifest(reader)


def read_manifest(source: Path) -> PackedManifest | None:
    """The manifest alone. Raises SlimcvError."""
    with _opened(source, limit=None) as reader:
        return _manifest(reader)


def read_samples(source: Path) -> Samples | None:
    """The golden samples, None where it was packed without them. Raises SlimcvError."""
    with _opened(source, limit=None) as reader:
        content = reader.samples()
        return samples.read(content) if content else None


def _samples(folder: Path, manifest: PackedManifest | None) -> bytes:
    from slimcv.serving import golden

    if manifest is None or manifest.golden is None:
        return b""
    found = golden.read(folder / manifest.golden.path)
    return samples.written(found.pixels, found.outputs)


def _manifest(reader: Reader) -> PackedManifest | None:
    return manifests.read(reader.manifest, onnx_bytes=reader.onnx_bytes, sha256=reader.sha256)


@contextmanager
def _opened(path: Path, *, limit: int | None) -> Iterator[Reader]:
    """The file as a reader; what is wrong with it is said with its name."""
    try:
        with path.open("rb") as file:
            # A .pt is one too, and no bundle.
            if path.suffix == ".zip" and file.read(len(_ZIP)) == _ZIP:
                raise SlimcvError(f"{path}: a .zip, not a packed model", _UNZIP)
            yield Reader(file, limit=limit)
    except OSError as error:
        raise unreadable(path, error) from error
    except (Damaged, Newer, TooLarge) as error:
        raise SlimcvError(f"{path}: {error.message}", error.hint) from error


@contextmanager
def _written(path: Path) -> Iterator[IO[bytes]]:
    try:
        with complete(path) as stream:
            yield stream
    except OSError as error:
        raise SlimcvError(
            f"cannot write {path}: {error.strerror}", "free space or choose another --out"
        ) from error


@contextmanager
def _mapped(path: Path) -> Iterator[memoryview]:
    """The bytes of a file, which the system reads as they are needed and may drop again."""
    try:
        with path.open("rb") as file:
            empty = not path.stat().st_size  # That cannot be mapped.
            mapping = b"" if empty else mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except OSError as error:
        raise unreadable(path, error) from error
    try:
        if not mapping:
            raise NotOnnx("it is empty")
        yield memoryview(mapping)
    except NotOnnx as error:
        raise SlimcvError(f"{path}: {error.message}", error.hint) from error


def _require_same(content: bytes, model: memoryview) -> None:
    """Unpack what is about to be written, and compare."""
    reader, at = Reader(io.BytesIO(content), limit=len(model)), 0
    for piece in reader.pieces():
        if model[at : at + len(piece)] != piece:
            raise AssertionError("the packed model is not the model")
        at += len(piece)
    if at != len(model):
        raise AssertionError("the packed model is not the model")
