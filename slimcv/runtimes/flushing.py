"""Denormal numbers taken for zero by this thread while a call runs, and as before afterwards.

The CPU has the switch in the thread's floating-point environment (in MXCSR flush-to-zero and
denormals-are-zero, in FPCR the bit FZ), which C's fenv.h saves and restores. PyTorch, which has a function
for it, is not asked: serving does without.
"""

from __future__ import annotations

import ctypes
import platform
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache

_Environment = ctypes.c_uint32 * 16
"""Room for fenv_t of the C libraries here: on x86-64 eight words, on AArch64 two."""

_SWITCHES = {"x86_64": (7, 0x8040), "aarch64": (0, 1 << 24)}
"""By machine, which word of fenv_t (glibc's and musl's) holds the switches, and their bits."""

_SMALL, _TENTH = 2.3e-308, 0.1
"""Their product is denormal."""


def begin() -> Own | None:
    """Have this thread take denormal numbers for zero, in a microsecond or two; what to give to `end`.

    None where it does so already, or where the switch is not known.
    """
    if _SMALL * _TENTH == 0.0:
        return None
    own = _own()
    if own.change is None:
        return None
    own.change(own.flushing)
    return own


def end(own: Own | None) -> None:
    """Have it compute as before `begin`."""
    if own is not None and own.change is not None:
        own.change(own.plain)


@contextmanager
def flushing() -> Iterator[None]:
    """The same for a block, whatever that does to the switch of its thread."""
    own = begin()
    try:
        yield
    finally:
        end(own)


class Own(threading.local):
    """A thread's environments, without the switch as it was first found, and with it, by their addresses.

    `change` brings one of them about, None where that is not known.
    """

    def __init__(self) -> None:
        get, change = _functions()
        self.change: Callable[[int], int] | None = change
        at, bits = _SWITCHES.get(platform.machine(), (0, 0))
        self._plain = _Environment()
        if get is not None:
            get(ctypes.addressof(self._plain))
        self._plain[at] &= ~bits
        self._flushing = _Environment.from_buffer_copy(self._plain)
        self._flushing[at] |= bits
        self.plain, self.flushing = map(ctypes.addressof, (self._plain, self._flushing))


@cache
def _functions() -> tuple[Callable[[int], int], Callable[[int], int]] | tuple[None, None]:
    """`fegetenv` and `fesetenv`, called with an address; Nones where the switch is not known."""
    if platform.system() != "Linux" or platform.machine() not in _SWITCHES:
        return None, None
    # Calls so short are not worth letting another thread run in between.
    prototype = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.c_void_p)
    for name in ("libm.so.6", None):
        try:
            library = ctypes.PyDLL(name)
            return prototype(("fegetenv", library)), prototype(("fesetenv", library))
        except (OSError, AttributeError):
            continue
    return None, None


@cache
def _own() -> Own:
    """The one of this process, each thread's apart."""
    return Own()
