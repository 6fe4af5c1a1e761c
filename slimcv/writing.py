"""Files that appear complete or not at all, and what goes wrong with those that come in an archive."""

from __future__ import annotations

import os
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from slimcv.errors import SlimcvError

ZIP_FAULTS = (zipfile.BadZipFile, zlib.error, OSError, EOFError, RuntimeError, NotImplementedError)
"""What `zipfile` raises of an archive that is damaged, encrypted, or compressed in a way it does not know."""


@contextmanager
def complete(path: Path, *, buffering: int = -1) -> Iterator[IO[bytes]]:
    """An open file that takes the place of `path` when the block ends without an error.

    It is on the disk by then; `buffering` is that of `open`. Raises OSError where the system refuses to write
    (disk full, no permission); a file that stood at `path` stays then, and nothing is left beside it.
    """
    partial = path.with_name(f".{path.name}.partial")
    try:
        with partial.open("wb", buffering=buffering) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def writable(folder: Path) -> Iterator[None]:
    """Turn the system's refusal to write there into a sentence; what was whole on disk stays whole."""
    try:
        yield
    except OSError as error:
        raise SlimcvError(
            f"{error.filename or folder}: cannot be written: {error.strerror or error}",
            f"make room in {folder} or name another --out; "
            "the same command, without --overwrite, goes on where the run stopped",
        ) from error


def write_text(path: Path, text: str) -> None:
    """Put `text` in the place of the file. Raises OSError as `complete` does.

    A name of a file that is no UTF-8, as Python has it, gets question marks.
    """
    with complete(path) as file:
        file.write(text.encode(errors="replace"))
