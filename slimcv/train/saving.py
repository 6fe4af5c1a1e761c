"""Files that appear complete or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from slimcv.errors import SlimcvError


@contextmanager
def complete(path: Path) -> Iterator[Path]:
    """A name beside `path` to write to; it takes the place of `path` when the block ends without an error.

    Raises SlimcvError where it cannot be written, for instance on a full disk; nothing is left behind then.
    """
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield partial
        partial.replace(path)
    except OSError as error:
        raise SlimcvError(
            f"cannot write {path}: {error.strerror or error}", "free some space, or choose another --out"
        ) from error
    finally:
        with suppress(OSError):
            partial.unlink()
