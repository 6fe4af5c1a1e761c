"""The hardware, and what this process may have of it, as Linux tells it."""

from __future__ import annotations

import os
import platform
from pathlib import Path

from slimcv.doctor.findings import Cache, Machine
from slimcv.measure import environment, room, threads
from slimcv.measure.cgroups import text

_CACHES = Path("/sys/devices/system/cpu/cpu0/cache")
_UNITS = {"K": 2**10, "M": 2**20, "G": 2**30}

SETTINGS = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "GOMP_CPU_AFFINITY",
    "KMP_AFFINITY",
    "LD_PRELOAD",
    "MALLOC_MMAP_THRESHOLD_",
    "MALLOC_TRIM_THRESHOLD_",
    "CXX",
    "ONEDNN_MAX_CPU_ISA",
    "XDG_CACHE_HOME",
)
"""Environment variables that change how fast a model runs, or where slimcv keeps things."""


def describe() -> Machine:
    """The machine this runs on."""
    name, version = platform.libc_ver()
    return Machine(
        cpu=environment.cpu_model(),
        architecture=platform.machine(),
        isa=environment.isa(),
        caches=caches(),
        cores=os.cpu_count() or 1,
        affinity=_affinity(),
        quota_cpus=threads.quota_cpus(),
        threads_allowed=threads.available(),
        memory_bytes=environment.memory_bytes(),
        memory_available_bytes=room.available_bytes(),
        memory_limit_bytes=room.limit_bytes(),
        system=f"{platform.system()} {platform.release()}",
        c_library=f"{name} {version}".strip() or "another C library than glibc",
        allocator_tunable=name == "glibc",
        python=platform.python_version(),
        environment={name: os.environ[name] for name in SETTINGS if name in os.environ},
    )


def caches(folder: Path = _CACHES) -> tuple[Cache, ...]:
    """The first CPU's caches, the smallest level first; empty where the system does not tell."""
    found = []
    for entry in sorted(folder.glob("index*")):
        level, size = text(entry / "level"), text(entry / "size")
        if level.isdigit() and size[:-1].isdigit() and size[-1:] in _UNITS:
            size_bytes = int(size[:-1]) * _UNITS[size[-1]]
            kind = text(entry / "type").lower()
            found.append(Cache(int(level), kind, size_bytes, text(entry / "shared_cpu_list")))
    return tuple(sorted(found, key=lambda cache: (cache.level, cache.kind)))


def _affinity() -> tuple[int, ...]:
    if hasattr(os, "sched_getaffinity"):
        return tuple(sorted(os.sched_getaffinity(0)))
    return tuple(range(os.cpu_count() or 1))
