"""What a word on the command line of a profile stands for: a model, or a bundle's network, zipped or not."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from slimcv import bundle
from slimcv.errors import SlimcvError
from slimcv.manifest import MANIFEST
from slimcv.writing import ZIP_FAULTS

if TYPE_CHECKING:
    from slimcv.manifest import Serve

NETWORK = bundle.PLACES["eager"]
"""The file of a bundle whose layers have the network's own names."""

_COUNTED_AS = {
    "eager": "eager",
    "eager_channels_last": "eager",
    "inductor": "inductor",
    "inductor_unfrozen": "inductor",
    "aotinductor": "inductor",
    "onnxruntime": "onnxruntime",
    "openvino": "openvino",
}
"""Where layers are timed of what a bundle serves; machine code counts nothing and comes from Inductor."""


@dataclass(frozen=True)
class Opened:
    """The file that holds the network, and for a bundle how it is served, None for a model by itself."""

    file: str
    serve: Serve | None = None

    @property
    def runtime(self) -> str | None:
        """The runtime that a bundle is served in, as layers are timed there."""
        return None if self.serve is None else _COUNTED_AS.get(self.serve.runtime, "eager")

    def as_json(self) -> dict[str, Any]:
        """What stands beside a profile's model: the file profiled, and what is served where that differs."""
        if self.serve is None:
            return {"file": self.file, "serves": None}
        known = ("path", "runtime", "precision")
        return {"file": NETWORK, "serves": {key: getattr(self.serve, key) for key in known}}


@contextmanager
def opened(word: str) -> Iterator[Opened]:
    """The model, or a bundle's network; a zipped bundle is unpacked for as long.

    Raises SlimcvError for a bundle that cannot be read or that has no network with names.
    """
    if Path(word, MANIFEST).is_file():
        yield _inside(Path(word), word)
    elif Path(word).suffix == ".zip" and zipfile.is_zipfile(word):
        with TemporaryDirectory(prefix="slimcv-profile-") as folder:
            yield _inside(_unzipped(word, Path(folder)), word)
    else:
        yield Opened(word)


def runtimes(asked: str | None, sides: Sequence[Opened]) -> list[str]:
    """Where each of these is timed: in the runtime asked for, else each bundle in its own.

    A model has none of its own and is timed in the last bundle's, so that its layers are told apart from
    what became of them and not one runtime from another; in eager PyTorch where there is no bundle.
    """
    if asked is not None:
        return [asked for _ in sides]
    own = [side.runtime for side in sides]
    shared = next((runtime for runtime in reversed(own) if runtime is not None), "eager")
    return [runtime or shared for runtime in own]


def _inside(folder: Path, word: str) -> Opened:
    manifest = bundle.read(folder, verify=False)
    if NETWORK not in manifest.files:
        raise SlimcvError(
            f"the bundle {word} has no {NETWORK}, whose layers have names", "optimise with --keep onnx,pt2"
        )
    bundle.check(folder / NETWORK, manifest.files[NETWORK])
    return Opened(str(folder / NETWORK), manifest.serve)


def _unzipped(word: str, folder: Path) -> Path:
    """The folder of manifest and network, from an archive that holds one bundle in one folder."""
    try:
        with zipfile.ZipFile(word) as archive:
            names = archive.namelist()
            tops = [name.removesuffix(MANIFEST) for name in names if Path(name).name == MANIFEST]
            if len(tops) != 1:
                raise SlimcvError(
                    f"{word}: not a zipped bundle, {MANIFEST} is in it {len(tops)} times",
                    "give a bundle, or a model's file",
                )
            if tops[0] + NETWORK in names:
                archive.extract(tops[0] + NETWORK, folder)
            # Where it lies is the archive's word, which never leaves the folder.
            return Path(archive.extract(tops[0] + MANIFEST, folder)).parent
    except ZIP_FAULTS as error:
        raise SlimcvError(f"{word}: cannot be unzipped: {error}", "copy the file again") from error
