"""Denormal numbers taken for zero by this thread while a call runs, and as before afterwards.

The CPU has the switch in the thread's floating-point environment (in MXCSR flush-to-zero and
denormals-are-zero, in FPCR the bit FZ), which C's fenv.h saves and restores. PyTorch, which has a function
for it, is not asked: serving does without.
"""

from __future__ import annotations

import ctypes
import platform
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

_Environment = ctypes.c_uint32 * 16
"""Room for fenv_t of the C libraries here: on x86-64 eight words, on AArch64 two."""

_SWITCHES = {"x86_64": (7, 0x8040), "aarch64": (0, 1 << 24)}
"""By machine, which word of fenv_t (glibc's and musl's) holds the switches, and their bits."""

Kept = tuple[Any, int] | None
"""What `begin` found, for `end`; None where the switch is not known."""


def begin() -> Kept:
    """Have this thread take denormal numbers for zero, in about a microsecond; what to give to `end`."""
    known = _known()
    if known is None:
        return None
    get, change, at, bits = known
    environment = _Environment()
    get(environment)
    kept = int(environment[at])
    environment[at] = kept | bits
    change(environment)
    return environment, kept


def end(kept: Kept) -> None:
    """Bring back the floating-point environment that `begin` found in this thread."""
    known = _known()
    if kept is None or known is None:
        return
    _, change, at, _ = known
    environment, switches = kept
    environment[at] = switches
    change(environment)


@contextmanager
def flushing() -> Iterator[None]:
    """The same for a block, whatever that does to the environment of its thread."""
    kept = begin()
    try:
        yield
    finally:
        end(kept)


@cache
def _known() -> tuple[Callable[[Any], int], Callable[[Any], int], int, int] | None:
    """`fegetenv` and `fesetenv` with the place of the switches; None where that is not known."""
    place = _SWITCHES.get(platform.machine())
    if platform.system() != "Linux" or place is None:
        return None
    for name in ("libm.so.6", None):
        try:
            # Calls so short are not worth letting another thread run in between.
            library = ctypes.PyDLL(name)
            return (library.fegetenv, library.fesetenv, *place)
        except (OSError, AttributeError):
            continue
    return None
