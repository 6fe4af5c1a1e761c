"""glibc's allocator set so that large activations stay in the process instead of going back to the kernel."""

import ctypes
import logging

_M_TRIM_THRESHOLD = -1
_M_TOP_PAD = -2
_M_MMAP_THRESHOLD = -3

_SETTINGS = ((_M_MMAP_THRESHOLD, 2**30), (_M_TRIM_THRESHOLD, 2**31 - 1), (_M_TOP_PAD, 2**28))
"""Blocks up to 1 GB come from the heap, which grows by 256 MB and is never given back (mallopt(3))."""

UNTUNED = "the allocator is left as it is: this C library has no mallopt, as glibc has; PyTorch may be slower"
"""What to say where `tune` returns False."""

log = logging.getLogger("slimcv")


def tune() -> bool:
    """Keep freed memory in this process: eager PyTorch otherwise spends up to half its time in page faults.

    It costs resident memory, so peak memory is measured without it. Returns False, and changes nothing, where
    the C library has no `mallopt` (musl, macOS, Windows) or refuses a setting. It is for processes of
    slimcv's own: `slimcv.load` leaves the allocator of the program that calls it alone.
    """
    mallopt = _function("mallopt")
    return mallopt is not None and all(mallopt(name, value) == 1 for name, value in _SETTINGS)


def tune_or_tell() -> bool:
    """Tune; where that is not possible the log says so."""
    tuned = tune()
    if not tuned:
        log.warning("%s", UNTUNED)
    return tuned


def tunable() -> bool:
    """Whether the C library has what `tune` needs."""
    return _function("mallopt") is not None


def trim() -> bool:
    """Give the heap's free pages back to the kernel, so that resident memory is memory in use."""
    malloc_trim = _function("malloc_trim")
    return malloc_trim is not None and malloc_trim(0) == 1


def _function(name: str) -> "ctypes._NamedFuncPointer | None":
    try:
        library = ctypes.CDLL(None)
    except (OSError, TypeError):
        return None
    return getattr(library, name, None)
