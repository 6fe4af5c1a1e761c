"""What decoding found, kept on disk: each set of pictures is checked once and decoded once for each size."""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, TypeVar

import numpy as np
import PIL

from slimcv.data.decoding import PictureError, decode, quiet_pillow
from slimcv.data.sources import Sample
from slimcv.errors import SlimcvError

VERSION = 1
"""Raise it when the decoder's pixels change: older files are then never looked at again."""

CHECK_SIZE = 8
"""Pictures are checked by decoding them to this size, which is the cheapest full reading of a JPEG."""

log = logging.getLogger("slimcv")
Result = TypeVar("Result")


def default_folder() -> Path:
    """`$XDG_CACHE_HOME/slimcv`, or `~/.cache/slimcv`."""
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "slimcv"


def broken(samples: Sequence[Sample], folder: Path) -> dict[int, str]:
    """Which samples cannot be decoded, by position, and why. Every picture is really decoded, the first time.

    Raises SlimcvError where the cache folder cannot be written.
    """
    path = folder / f"{_digest(samples, 'broken')}.json"
    known = _reasons(path, len(samples))
    if known is not None:
        return known
    log.info("checking %s pictures", f"{len(samples):,}")
    found = enumerate(_each(_fault, samples, "checked"))
    reasons = {index: reason for index, reason in found if reason is not None}
    with _exclusive(path), _written(path) as file:
        file.write(json.dumps({"count": len(samples), "broken": reasons}).encode())
    return reasons


def pixels(samples: Sequence[Sample], height: int, width: int, channels: int, *, folder: Path) -> np.ndarray:
    """The samples as uint8 (n, height, width, channels), mapped from a file in `folder` made if need be.

    A file that is missing, cut short or of another version is made anew. Raises PictureError where a
    picture became unreadable since it was checked, and SlimcvError where the cache folder is full or cannot
    be written.
    """
    shape = (len(samples), height, width, channels)
    path = folder / f"{_digest(samples, f'pixels {height} {width} {channels}')}.npy"
    mapped = _mapped(path, shape)
    if mapped is not None:
        return mapped
    with _exclusive(path):
        # Another process may have made it while this one waited.
        if _mapped(path, shape) is None:
            log.info("decoding %s pictures to %dx%d", f"{len(samples):,}", height, width)
            with _written(path) as file:
                header = {"descr": "|u1", "fortran_order": False, "shape": shape}
                np.lib.format.write_array_header_1_0(file, header)
                for picture in _each(
                    lambda sample: _decoded(sample, height, width, channels), samples, "decoded"
                ):
                    file.write(picture.data)
    mapped = _mapped(path, shape)
    if mapped is None:
        raise SlimcvError(f"{path} changed while it was read", "do not clean the cache while slimcv runs")
    return mapped


def _digest(samples: Sequence[Sample], purpose: str) -> str:
    """A name for a result, from the files, their sizes and times, the decoder, and what was asked for."""
    digest = hashlib.sha256(f"slimcv {VERSION} Pillow {PIL.__version__} {purpose}".encode())
    for sample in samples:
        place = Path(sample.path).absolute() if isinstance(sample.picture, str) else ""
        digest.update(f"\0{place}\0{sample.identity}".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()[:32]


def _reasons(path: Path, count: int) -> dict[int, str] | None:
    try:
        read = json.loads(path.read_bytes())
        if read["count"] != count:
            return None
        return {int(index): str(reason) for index, reason in read["broken"].items()}
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None


def _mapped(path: Path, shape: tuple[int, ...]) -> np.ndarray | None:
    try:
        array = np.lib.format.open_memmap(path, mode="r")
    except (OSError, ValueError):
        return None
    return array if array.shape == shape and array.dtype == np.uint8 else None


def _fault(sample: Sample) -> str | None:
    try:
        decode(sample.picture, CHECK_SIZE, CHECK_SIZE, 3)
    except PictureError as error:
        return error.reason
    return None


def _decoded(sample: Sample, height: int, width: int, channels: int) -> np.ndarray:
    try:
        return decode(sample.picture, height, width, channels)
    except PictureError as error:
        raise PictureError(sample.path, f"{error.reason} (it was readable before)") from error


def _each(function: Callable[[Sample], Result], samples: Sequence[Sample], done: str) -> Iterator[Result]:
    """Apply a function in order and on all cores: Pillow decodes outside the interpreter lock."""
    portion = max(1024, len(samples) // 20)
    with quiet_pillow(), ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        for start in range(0, len(samples), portion):
            if start:
                log.info("%s %s of %s pictures", done, f"{start:,}", f"{len(samples):,}")
            yield from pool.map(function, samples[start : start + portion])


@contextmanager
def _exclusive(path: Path) -> Iterator[None]:
    """Hold the lock of the folder `path` is to be written to, and turn a full disk into a SlimcvError."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with (path.parent / "lock").open("wb") as lock:
            _wait_for(lock)
            for left in path.parent.glob(f"{path.name}.*.partial"):
                left.unlink(missing_ok=True)
            yield
    except OSError as error:
        raise SlimcvError(
            f"cannot write {path}: {error.strerror or error}",
            "free some space or put the cache elsewhere with --cache DIR",
        ) from error


def _wait_for(lock: IO[bytes]) -> None:
    # Some network file systems know no locks: then two processes may decode the same pictures, to no harm.
    with suppress(OSError):
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            log.info("waiting for another process that is decoding pictures")
            fcntl.flock(lock, fcntl.LOCK_EX)


@contextmanager
def _written(path: Path) -> Iterator[IO[bytes]]:
    """A file that appears under its name complete or not at all."""
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        with partial.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
