"""Where pictures come from: a folder tree, tables or a user's function, listed without decoding anything."""

from __future__ import annotations

import difflib
import hashlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from slimcv import user_code
from slimcv.data.decoding import SUFFIXES, Picture
from slimcv.data.folder import Keeping
from slimcv.errors import SlimcvError, nearest

VALIDATION_FOLDERS = ("val", "valid", "validation", "test")
TABLES = "hf:"
LAYOUT_HINT = "expected DIR/train/CLASS/*.jpg and DIR/val/CLASS/*.jpg, or DIR/CLASS/*.jpg"
FACTORY_HINT = (
    'the function returns {"train": (pictures, labels), "val": (pictures, labels), "classes": [names]}, '
    "pictures being a uint8 array (n, height, width[, channels]) or a sequence of paths, images or arrays"
)


MISSING = "missing"
"""The identity of a file that was not there when it was listed: a link to nothing."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One picture and the name of its class. There may be very many: some hundred bytes each.

    `path` names it to the user, `key` within its source whatever the source's place; `identity` changes when
    its contents do (size and modification time of a file, a hash of pixels in memory).
    """

    picture: Picture
    path: str
    key: str
    class_name: str
    identity: str


@dataclass(frozen=True)
class Listing:
    """What a source holds. `val` is None where the source does not say what is kept for validation."""

    classes: tuple[str, ...]
    train: tuple[Sample, ...]
    val: tuple[Sample, ...] | None


def find(source: str, keeping: Keeping | None = None) -> Listing:
    """List the pictures of a directory, `hf:PATH` or `package.module:factory` (or `path/file.py:factory`).

    A directory holds `train/` and `val/` (or `valid/`, `validation/`, `test/`) with a folder for each class,
    or the class folders themselves. Pictures may lie deeper within a class folder; hidden files and folders
    are ignored.

    For `hf:PATH` see slimcv.data.hugging_face: what it reads of Parquet and WebDataset files it keeps as
    `keeping` says, without it until the process ends.

    The factory is called without arguments and returns a mapping: `train` and, if wanted, `val`, each a pair
    (pictures, labels), and `classes`, the names in label order. Pictures are a uint8 array (n, height, width)
    or (n, height, width, channels), or a sequence of paths, Pillow images or such arrays; labels are integers
    or names.

    Raises SlimcvError where there is no such source or its layout is not one of these.
    """
    if source.startswith(TABLES):
        from slimcv.data import hugging_face

        return hugging_face.find(source.removeprefix(TABLES), keeping or Keeping(None))
    try:
        if Path(source).is_dir():
            return _directory(Path(source))
        if ":" in source:
            return _factory(source)
        if Path(source).exists():
            raise SlimcvError(f"{source} is a file, not a directory of pictures", LAYOUT_HINT)
    except PermissionError as error:
        raise SlimcvError(f"cannot read {error.filename or source}", "check its permissions") from error
    raise SlimcvError(f"no such directory: {source}", _directory_hint(Path(source)))


def _directory_hint(missing: Path) -> str:
    parent = missing.absolute().parent
    beside = _entries(parent)[0] if parent.is_dir() else []
    close = difflib.get_close_matches(missing.name, beside)
    return nearest(missing.name, close) if close else LAYOUT_HINT


def _directory(root: Path) -> Listing:
    held_out = next((name for name in VALIDATION_FOLDERS if (root / name).is_dir()), None)
    if not (root / "train").is_dir():
        if held_out is not None and _entries(root / held_out)[0]:
            raise SlimcvError(f"{root} has {held_out}/ but no train/", LAYOUT_HINT)
        return _listing(root, _class_folders(root, root), None)
    train = _class_folders(root, root / "train")
    if held_out is None:
        return _listing(root, train, None)
    val = _class_folders(root, root / held_out)
    unknown = sorted(set(val) - set(train))
    if unknown:
        raise SlimcvError(
            f"{root / held_out} has class folders that train/ lacks: {', '.join(unknown)}",
            "rename them, or add pictures of these classes to train/",
        )
    return _listing(root, train, val)


def _listing(
    root: Path, train: Mapping[str, list[Sample]], val: Mapping[str, list[Sample]] | None
) -> Listing:
    if not any(train.values()):
        found = "no pictures in class folders" if train else "no class folders"
        raise SlimcvError(f"{found} in {root}", LAYOUT_HINT)
    if val is not None and not any(val.values()):
        raise SlimcvError(f"no pictures for validation in {root}", LAYOUT_HINT)
    return Listing(
        classes=tuple(train),
        train=tuple(sample for samples in train.values() for sample in samples),
        val=None if val is None else tuple(sample for samples in val.values() for sample in samples),
    )


def _class_folders(root: Path, folder: Path) -> dict[str, list[Sample]]:
    """The pictures of each class folder, both in order of their names."""
    return {
        name: [
            _file_sample(path, os.path.relpath(path, root), name)
            for path in picture_files(str(folder / name))
        ]
        for name in _entries(folder)[0]
    }


def picture_files(folder: str) -> Iterator[str]:
    """Every picture below a folder in order of the names, links followed, hidden files left out.

    No folder is entered twice: links may form circles. Raises SlimcvError for one that cannot be listed.
    """
    return _picture_files(folder, seen=set())


def _picture_files(folder: str, *, seen: set[tuple[int, int]]) -> Iterator[str]:
    place = Path(folder).stat()
    if (place.st_dev, place.st_ino) in seen:
        return
    seen.add((place.st_dev, place.st_ino))
    folders, files = _entries(folder)
    yield from (f"{folder}/{name}" for name in files if f".{name.rpartition('.')[2].lower()}" in SUFFIXES)
    for name in folders:
        yield from _picture_files(f"{folder}/{name}", seen=seen)


def _entries(folder: str | Path) -> tuple[list[str], list[str]]:
    """The names of the folders and of the files in a folder, each sorted, the hidden ones left out."""
    folders: list[str] = []
    files: list[str] = []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if not entry.name.startswith((".", "__")):
                    (folders if entry.is_dir() else files).append(entry.name)
    except OSError as error:
        raise SlimcvError(f"cannot list {folder}: {error.strerror}", "check its permissions") from error
    return sorted(folders), sorted(files)


def _file_sample(path: str, key: str, class_name: str) -> Sample:
    try:
        status = os.stat(path)  # noqa: PTH116 -- a Path for each of very many files takes longer than the rest
        identity = f"{status.st_size}:{status.st_mtime_ns}"
    except OSError:
        # A dangling link is a broken picture, which decoding will name.
        identity = MISSING
    return Sample(path, path, key, class_name, identity)


def _factory(source: str) -> Listing:
    made = _imported(source)()
    if not isinstance(made, Mapping) or not {"train", "classes"} <= made.keys():
        raise SlimcvError(f"{source} did not return a mapping with 'train' and 'classes'", FACTORY_HINT)
    classes = tuple(str(name) for name in made["classes"])
    if len(set(classes)) != len(classes):
        raise SlimcvError(f"{source} names a class twice", "every entry of 'classes' must be different")
    val = None if made.get("val") is None else _in_memory(source, "val", made["val"], classes)
    return Listing(classes, _in_memory(source, "train", made["train"], classes), val)


def _imported(source: str) -> Callable[[], Any]:
    """What `package.module:name` or `path/file.py:name` names; modules may lie in the working directory."""
    module_name, _, name = source.rpartition(":")
    module = user_code.load(module_name)
    factory = getattr(module, name, None)
    if not callable(factory):
        public = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
        raise SlimcvError(f"{module_name} has no function '{name}'", nearest(name, public))
    return factory  # type: ignore[no-any-return]


def _in_memory(source: str, split: str, pair: Any, classes: Sequence[str]) -> tuple[Sample, ...]:
    if not isinstance(pair, tuple | list) or len(pair) != 2:
        raise SlimcvError(f"{source}: '{split}' is not a pair (pictures, labels)", FACTORY_HINT)
    pictures, labels = pair
    if hasattr(pictures, "__array__"):
        pictures = np.asarray(pictures)
        if pictures.dtype != np.uint8 or pictures.ndim not in (3, 4):
            found = f"{pictures.dtype} of shape {pictures.shape}"
            raise SlimcvError(f"{source}: the pictures of '{split}' are {found}", FACTORY_HINT)
    if len(pictures) != len(labels):
        counts = f"{len(pictures)} pictures and {len(labels)} labels"
        raise SlimcvError(f"{source}: '{split}' has {counts}", "give one label a picture, in the same order")
    if len(pictures) == 0:
        raise SlimcvError(f"{source}: '{split}' holds no pictures", FACTORY_HINT)
    return tuple(
        _memory_sample(picture, f"{split}[{index}]", _class_name(label, classes, source))
        for index, (picture, label) in enumerate(zip(pictures, labels, strict=True))
    )


def _class_name(label: Any, classes: Sequence[str], source: str) -> str:
    if isinstance(label, str):
        if label not in classes:
            raise SlimcvError(f"{source}: label '{label}' is not in 'classes'", nearest(label, classes))
        return label
    if not 0 <= int(label) < len(classes):
        raise SlimcvError(
            f"{source}: label {int(label)} is outside 0 to {len(classes) - 1}",
            "labels are positions in 'classes'",
        )
    return classes[int(label)]


def _memory_sample(picture: Any, key: str, class_name: str) -> Sample:
    if isinstance(picture, str | os.PathLike):
        return _file_sample(os.fspath(picture), key, class_name)
    if not isinstance(picture, Image.Image):
        picture = np.asarray(picture)
    shape = (picture.mode, picture.size) if isinstance(picture, Image.Image) else picture.shape
    digest = hashlib.sha256(repr(shape).encode())
    digest.update(picture.tobytes())
    return Sample(picture, key, key, class_name, digest.hexdigest())
