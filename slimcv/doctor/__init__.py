"""What this machine and this installation can do for slimcv, what is missing, and how to get it.

Imports nothing but the standard library before it is asked: it must be able to say that torch is broken.
"""

from __future__ import annotations

from slimcv.doctor import libraries, machine, missing, runtimes
from slimcv.doctor.findings import SCHEMA_VERSION, Diagnosis, Library, Machine, Missing, Runtime

__all__ = [
    "SCHEMA_VERSION",
    "Diagnosis",
    "Library",
    "Machine",
    "Missing",
    "Runtime",
    "examine",
]


def examine() -> Diagnosis:
    """Look at the machine, import every library in a process of its own, run a tiny model in every runtime.

    It takes about half a minute, most of it for the compiler.
    """
    here, found = machine.describe(), libraries.examine()
    core = all(library.works for library in found if library.core)
    running = runtimes.try_all() if core else ()
    works = core and any(runtime.name == "eager" and runtime.works for runtime in running)
    return Diagnosis(works, here, found, running, missing.gather(here, found, running))
