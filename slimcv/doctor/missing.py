"""What is not here, what it would be good for, and how to get it."""

from __future__ import annotations

from collections.abc import Sequence

from slimcv.doctor.findings import Library, Machine, Missing, Runtime
from slimcv.measure import environment

_GOOD_FOR = {
    "timm": "models by name, timm:NAME",
    "demo": "the demo on real pictures",
    "hf": "data sets of Hugging Face, hf:PATH",
    "mlflow": "tracking, --track mlflow",
}
"""What an optional part of slimcv is for, where its name does not say."""


_NO_WAY = "another CPU"
"""Nothing that is installed brings a CPU instructions."""


def gather(
    machine: Machine, libraries: Sequence[Library], runtimes: Sequence[Runtime]
) -> tuple[Missing, ...]:
    """Broken and absent libraries, runtimes that fail, instructions and limits, the gravest first."""
    found = [_library(library) for library in libraries if not library.works and library.extra is None]
    found += [
        Missing(
            f"the runtime {runtime.name}: {runtime.problem}",
            f"running models in {runtime.name}",
            runtime.hint,
        )
        for runtime in runtimes
        if not runtime.works
    ]
    found += _extras(libraries)
    found += _hardware(machine)
    return tuple(found)


def _library(library: Library) -> Missing:
    purpose = "all that slimcv does" if library.core else "steps and runtimes that use it"
    again = "pip install --force-reinstall slimcv"
    if library.version is None:
        return Missing(library.name, purpose, again if library.core else f"pip install '{library.name}'")
    return Missing(
        f"{library.name} {library.version} does not import: {library.problem}",
        purpose,
        again if library.core else _mend(library),
    )


def _extras(libraries: Sequence[Library]) -> list[Missing]:
    found = []
    for extra in dict.fromkeys(library.extra for library in libraries if library.extra):
        members = [library for library in libraries if library.extra == extra]
        purpose = _GOOD_FOR.get(extra, f"the optional part '{extra}'")
        absent = [library.name for library in members if library.version is None]
        if absent:
            found.append(Missing(", ".join(absent), purpose, f"pip install 'slimcv[{extra}]'"))
        found += [
            Missing(
                f"{library.name} {library.version} does not import: {library.problem}",
                purpose,
                _mend(library),
            )
            for library in members
            if library.problem is not None
        ]
    return found


def _mend(library: Library) -> str:
    if "torchvision" in (library.problem or ""):
        return "install the torchvision that was built for this torch, from the same index"
    return f"pip install --force-reinstall '{library.name}'"


def _hardware(machine: Machine) -> list[Missing]:
    found = []
    if machine.isa and not environment.has_int8_instructions():
        found.append(Missing("instructions for 8-bit products (VNNI)", "INT8 at full speed", _NO_WAY))
    if machine.isa and not environment.has_bf16_instructions():
        found.append(Missing("instructions for bfloat16", "bf16 faster than fp32", _NO_WAY))
    if not machine.allocator_tunable:
        found.append(Missing("glibc's allocator", "eager PyTorch without page faults", "an image with glibc"))
    if machine.threads_allowed < machine.cores:
        what = f"{machine.cores - machine.threads_allowed} of {machine.cores} cores"
        found.append(Missing(what, "more threads", "a larger CPU quota, or a wider affinity"))
    return found
