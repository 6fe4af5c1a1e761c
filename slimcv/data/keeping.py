"""Files of decoded pictures: made once, gone on with after a kill, never more than there is room for."""

from __future__ import annotations

import glob
import logging
import os
import tempfile
import uuid
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import PIL

from slimcv.data.folder import (
    DATA,
    FREE_SHARE,
    FULL,
    PARTIAL,
    PROGRESS,
    Keeping,
    free_bytes,
    hold,
    make_room,
    writing,
)
from slimcv.data.rows import Fault, Size
from slimcv.data.sources import Sample
from slimcv.data.stored import Progress, file_bytes, fill, intact
from slimcv.errors import SlimcvError

VERSION = f"v2-pillow{PIL.__version__}"
"""Part of every name: the decoder decides the pixels. Raise the number when slimcv's part of it changes."""

log = logging.getLogger("slimcv")


@dataclass(frozen=True)
class Made:
    """An open file with the pixels, and why some pictures have none there.

    Of a file that another process made meanwhile the faults are not known: None.
    """

    file: IO[bytes]
    faults: dict[int, Fault] | None


def find(keeping: Keeping, key: str, shape: tuple[int, ...]) -> IO[bytes] | None:
    """The file of pictures (n, height, width, channels), in use while it is open; None if there is none.

    One that is not intact is deleted, and that is told.
    """
    if keeping.folder is None:
        return None
    path = keeping.folder / _name(key, shape)
    with ExitStack() as closing, suppress(FileNotFoundError, NotADirectoryError):
        file = closing.enter_context(path.open("rb"))
        if intact(file, shape):
            hold(file)
            closing.pop_all()
            return file
        log.warning("%s is damaged: its pictures are decoded anew", path)
        # A folder that may only be read keeps it.
        with suppress(OSError):
            path.unlink()
    return None


def make(
    keeping: Keeping,
    key: str,
    samples: Sequence[Sample],
    size: Size,
    *,
    lasting: Callable[[dict[int, Fault]], bool],
) -> Made | None:
    """Decode the samples into a file, on all cores; None where there is no room for it.

    `lasting` is told the faults in the end and says whether the file is to be kept beyond this process.
    Raises SlimcvError where the folder cannot be written.
    """
    try:
        if keeping.folder is None:
            return _unnamed(samples, size, keeping.limit_bytes)
        with writing(keeping.folder) as locked:
            return _named(keeping.folder, keeping, key, samples, size, lasting, locked=locked)
    except OSError as error:
        if error.errno not in FULL:
            raise
        log.warning("decoded pictures find no room: %s", (error.strerror or str(error)).lower())
        return None


def _name(key: str, shape: tuple[int, ...]) -> str:
    return f"{key}-{shape[1]}x{shape[2]}x{shape[3]}-{VERSION}{DATA}"


def _unnamed(samples: Sequence[Sample], size: Size, limit_bytes: int) -> Made | None:
    needed = file_bytes((len(samples), *size))
    with ExitStack() as closing:
        try:
            folder = Path(tempfile.gettempdir())
            file = closing.enter_context(tempfile.TemporaryFile(prefix="slimcv-", dir=folder))
        except OSError as error:
            raise SlimcvError(
                f"cannot write temporary files: {error.strerror or error}", "set TMPDIR to another folder"
            ) from error
        if needed > min(limit_bytes, FREE_SHARE * free_bytes(folder)):
            return None
        _tell(samples, size, done=0)
        faults = fill(file, samples, size)
        closing.pop_all()
    return Made(file, faults)


def _named(
    folder: Path,
    keeping: Keeping,
    key: str,
    samples: Sequence[Sample],
    size: Size,
    lasting: Callable[[dict[int, Fault]], bool],
    *,
    locked: bool,
) -> Made | None:
    shape = (len(samples), *size)
    if (file := find(keeping, key, shape)) is not None:
        return Made(file, None)
    path = folder / _name(key, shape)
    # Without a lock another process may be decoding the same pictures: each then has a file of its own, which
    # nobody goes on with.
    own = path if locked else path.with_stem(f"{path.stem}-{uuid.uuid4().hex}")
    partial, progress = own.with_suffix(PARTIAL), Progress(own.with_suffix(PROGRESS))
    done, faults = progress.read(len(samples)) if _begun(partial, shape) else (0, {})
    if not make_room(folder, file_bytes(shape), limit_bytes=keeping.limit_bytes, begun=partial.name):
        return None
    _tell(samples, size, done=done)
    _tell_versions(path)
    with ExitStack() as closing:
        file = closing.enter_context(partial.open("r+b" if done else "w+b"))
        if not locked:
            closing.callback(partial.unlink, missing_ok=True)
        synced = progress.write if locked else None
        try:
            faults = fill(file, samples, size, done=done, faults=faults, synced=synced)
            os.fsync(file.fileno())
        except OSError as error:
            if error.errno in FULL:
                partial.unlink(missing_ok=True)
                progress.clear()
            raise
        hold(file)
        if lasting(faults):
            partial.replace(path)
        else:
            partial.unlink()
        progress.clear()
        closing.pop_all()
    return Made(file, faults)


def _begun(partial: Path, shape: tuple[int, ...]) -> bool:
    try:
        with partial.open("rb") as file:
            return intact(file, shape)
    except OSError:
        return False


def _tell(samples: Sequence[Sample], size: Size, *, done: int) -> None:
    log.info("decoding %s pictures to %dx%d", f"{len(samples):,}", size[0], size[1])
    if done:
        log.info("%s of them were decoded before", f"{done:,}")


def _tell_versions(path: Path) -> None:
    """Say so where the pictures were decoded before, but by another version of slimcv or Pillow."""
    begin = path.name.removesuffix(f"{VERSION}{DATA}")
    for other in path.parent.glob(f"{glob.escape(begin)}*{DATA}"):
        log.info("%s is of another version and not used", other.name)
