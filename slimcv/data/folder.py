"""The folder that decoded pictures are kept in: where it is, who may write, and what makes room."""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from slimcv.errors import SlimcvError

LIMIT_BYTES = 20 * 10**9
"""What a cache folder may hold unless the user says otherwise."""

FREE_SHARE = 0.9
"""The share of the free disk that may be taken."""

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""How the operating system says that a file finds no room."""

DATA, PARTIAL, PROGRESS, TABLES = ".npy", ".partial", ".progress", ".tables"
"""Endings: pixels, pixels on their way, how far they are, a folder of another format read into tables."""

log = logging.getLogger("slimcv")


@dataclass(frozen=True)
class Keeping:
    """Where decoded pictures are kept, and how many bytes of them.

    Without a folder they lie in temporary files that have no name and end with the process.
    """

    folder: Path | None
    limit_bytes: int = LIMIT_BYTES


def default_folder() -> Path:
    """`$XDG_CACHE_HOME/slimcv`, or `~/.cache/slimcv`."""
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "slimcv"


def free_bytes(folder: Path) -> int:
    """What the file system of a folder has room for."""
    return shutil.disk_usage(folder).free


@contextmanager
def writing(folder: Path) -> Iterator[bool]:
    """Hold the folder's lock, or be told that this file system has none: then others may write here as well.

    A folder that cannot be written becomes a SlimcvError, a full disk does not.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / "lock").open("wb") as lock:
            yield _wait_for(lock)
    except OSError as error:
        if error.errno in FULL:
            raise
        raise SlimcvError(
            f"cannot write {error.filename or folder}: {error.strerror or error}",
            "put the cache elsewhere with --cache DIR, or keep no files with --no-cache",
        ) from error


def hold(file: IO[bytes]) -> None:
    """Say that an open file of the cache is in use, until it is closed, and that it was used now."""
    with suppress(OSError):
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    # Somebody else's cache can be read without the right to change its times.
    with suppress(OSError):
        os.utime(file.fileno())


@dataclass(frozen=True)
class _Kept:
    """A file, or a folder that holds a file named `lock`."""

    path: Path
    lock: Path
    size_bytes: int
    used_ns: int


def make_room(folder: Path, needed: int, *, limit_bytes: int, begun: str = "") -> bool:
    """Delete what was longest unused until a file of `needed` bytes fits; False where that cannot be done.

    The folder then holds no more than `limit_bytes`, and what is still to be written takes at most nine
    tenths of the free disk. Files that some process has in use stay, and so does the file `begun`, which is
    to grow to the bytes needed. For the holder of the folder's lock.
    """
    if needed > limit_bytes:
        return False
    kept = sorted(_contents(folder), key=lambda one: one.used_ns)
    others = [one for one in kept if one.path.name != begun]
    written = sum(one.size_bytes for one in kept) - sum(one.size_bytes for one in others)
    over_limit = sum(one.size_bytes for one in others) + needed - limit_bytes
    over_disk = needed - written - int(FREE_SHARE * free_bytes(folder))
    with ExitStack() as held:
        going = []
        for one in others:
            if max(over_limit, over_disk) <= 0:
                break
            if _unused(one, held):
                going.append(one)
                over_limit -= one.size_bytes
                over_disk -= one.size_bytes
        if max(over_limit, over_disk) > 0:
            return False
        for one in going:
            _delete(one.path)
            log.info("%s was longest unused and made room in the cache", one.path.name)
    return True


def _contents(folder: Path) -> Iterator[_Kept]:
    for path in folder.iterdir():
        with suppress(FileNotFoundError):
            if path.suffix in (DATA, PARTIAL):
                yield _Kept(path, path, path.stat().st_size, path.stat().st_mtime_ns)
            elif path.suffix == TABLES:
                size = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
                yield _Kept(path, path / "lock", size, (path / "lock").stat().st_mtime_ns)


def _unused(one: _Kept, held: ExitStack) -> bool:
    """Whether nobody has it in use, nor can have until `held` ends."""
    try:
        fcntl.flock(held.enter_context(one.lock.open("rb")), fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _delete(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
        return
    path.unlink(missing_ok=True)
    path.with_suffix(PROGRESS).unlink(missing_ok=True)


def _wait_for(lock: IO[bytes]) -> bool:
    """Take the lock; False on a file system that knows none, as some of networks do."""
    with suppress(OSError):
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            log.info("waiting for another process that is decoding pictures")
            fcntl.flock(lock, fcntl.LOCK_EX)
        return True
    return False
