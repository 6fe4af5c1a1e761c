"""A diagnosis as data: the machine, the libraries, the runtimes, and what is missing."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class Cache:
    """One of the CPU's caches; `shared_by` lists the logical CPUs that use it."""

    level: int
    kind: str
    size_bytes: int
    shared_by: str


@dataclass(frozen=True)
class Machine:
    """The hardware and what this process may have of it; None where there is no limit, or it is not told.

    `affinity` are the logical CPUs it may run on, `quota_cpus` what the container is given of their time,
    `threads_allowed` what both leave. `memory_limit_bytes` is the container's.
    """

    cpu: str
    architecture: str
    isa: tuple[str, ...]
    caches: tuple[Cache, ...]
    cores: int
    affinity: tuple[int, ...]
    quota_cpus: float | None
    threads_allowed: int
    memory_bytes: int
    memory_available_bytes: int | None
    memory_limit_bytes: int | None
    system: str
    c_library: str
    allocator_tunable: bool
    python: str
    environment: dict[str, str]


@dataclass(frozen=True)
class Library:
    """A distribution slimcv uses: its version, None where it is not installed.

    `extra` is the optional part of slimcv it belongs to, `core` whether nothing works without it. `problem`
    is why it does not import, None where it does.
    """

    name: str
    version: str | None
    extra: str | None
    core: bool
    problem: str | None = None

    @property
    def works(self) -> bool:
        """It is installed and can be imported."""
        return self.version is not None and self.problem is None


@dataclass(frozen=True)
class Runtime:
    """What a runtime did with a tiny model in a process of its own.

    `precision` is what it computed in, `precisions` all it has kernels for here. `start_seconds` is from the
    model in memory to the first answer: written for the runtime, loaded and, where it does that, compiled.
    `problem` and `hint` say why it failed.
    """

    name: str
    works: bool
    precision: str | None = None
    precisions: tuple[str, ...] = ()
    start_seconds: float | None = None
    details: str = ""
    problem: str | None = None
    hint: str | None = None


@dataclass(frozen=True)
class Missing:
    """Something that is not here: what it would be good for, and how to get it where that is possible."""

    what: str
    good_for: str
    get: str | None


@dataclass(frozen=True)
class Diagnosis:
    """`works` says whether slimcv's core does: a model can be loaded and run in PyTorch."""

    works: bool
    machine: Machine
    libraries: tuple[Library, ...]
    runtimes: tuple[Runtime, ...]
    missing: tuple[Missing, ...]

    def as_json(self) -> dict[str, Any]:
        """The object `slimcv doctor --format json` prints."""
        values = {"schema_version": SCHEMA_VERSION, **asdict(self)}
        values["libraries"] = [{**asdict(library), "works": library.works} for library in self.libraries]
        return values
