"""A diagnosis drawn: what works here, what is missing, and how to get it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from slimcv.quoting import cell, one_line
from slimcv.report import as_json, check_format, figures
from slimcv.report.markdown import grid
from slimcv.report.terminal import draw, table

if TYPE_CHECKING:
    from rich.console import RenderableType

_RUNTIMES = ("runtime", "here", "computes in", "kernels for", "first answer", "")
_LIBRARIES = ("library", "version", "part of", "")
_MISSING = ("missing", "good for", "how to get it")
_NARROWED: Mapping[tuple[str, ...], tuple[set[int], set[int]]] = {
    _RUNTIMES: (set(), {2, 3, 5}),
    _LIBRARIES: ({0}, {3}),
    _MISSING: (set(), {0, 1, 2}),
}
"""Columns of names and of words, which give way where a table is too wide."""


def render_diagnosis(diagnosis: Mapping[str, Any], format: str, *, colour: bool = False) -> str:
    """A `Diagnosis.as_json()` as text, JSON or Markdown. Raises SlimcvError on an unknown format."""
    check_format(format)
    if format == "json":
        return as_json(diagnosis)
    return _markdown(diagnosis) if format == "markdown" else _text(diagnosis, colour=colour)


def _text(diagnosis: Mapping[str, Any], *, colour: bool) -> str:
    from rich.text import Text

    style = "green" if diagnosis["works"] else "red"
    parts: list[RenderableType] = [Text(_verdict(diagnosis), style=style), ""]
    parts += [Text(f"{label}: {one_line(value)}") for label, value in _machine(diagnosis["machine"])]
    for headings, lines in _tables(diagnosis):
        names, words = _NARROWED[headings]
        cells = [[one_line(text) for text in line] for line in lines]
        parts += [table(headings, cells, names=names, words=words)]
    return draw(parts, colour=colour)


def _markdown(diagnosis: Mapping[str, Any]) -> str:
    sections = [
        "# slimcv doctor",
        f"**{cell(_verdict(diagnosis))}**",
        grid(("", "value"), _machine(diagnosis["machine"]), left=2),
        *(grid(headings, lines, left=len(headings)) for headings, lines in _tables(diagnosis)),
    ]
    return "\n\n".join(sections) + "\n"


def _verdict(diagnosis: Mapping[str, Any]) -> str:
    if diagnosis["works"]:
        return "slimcv works here"
    return "slimcv does not work here: see what is missing below"


def _tables(diagnosis: Mapping[str, Any]) -> list[tuple[tuple[str, ...], list[tuple[str, ...]]]]:
    found = [
        (_RUNTIMES, [_runtime(runtime) for runtime in diagnosis["runtimes"]]),
        (_LIBRARIES, [_library(library) for library in diagnosis["libraries"]]),
        (_MISSING, [_missing(missing) for missing in diagnosis["missing"]]),
    ]
    return [(headings, lines) for headings, lines in found if lines]


def _runtime(runtime: Mapping[str, Any]) -> tuple[str, ...]:
    if not runtime["works"]:
        return (runtime["name"], "no", "", "", "", str(runtime["problem"]))
    kernels = ", ".join(runtime["precisions"])
    first = figures.duration(runtime["start_seconds"])
    return (runtime["name"], "works", runtime["precision"], kernels, first, runtime["details"])


def _library(library: Mapping[str, Any]) -> tuple[str, ...]:
    part = "slimcv" if library["extra"] is None else f"slimcv[{library['extra']}]"
    version = library["version"] or "not installed"
    return (library["name"], version, part, library["problem"] or "")


def _missing(missing: Mapping[str, Any]) -> tuple[str, ...]:
    return (missing["what"], missing["good_for"], missing["get"] or figures.NOT_MEASURED)


def _machine(machine: Mapping[str, Any]) -> list[tuple[str, str]]:
    caches = ", ".join(
        f"L{cache['level']} {cache['kind']} {_binary(cache['size_bytes'])}" for cache in machine["caches"]
    )
    quota = machine["quota_cpus"]
    limit = machine["memory_limit_bytes"]
    free = machine["memory_available_bytes"]
    lines = [
        ("CPU", f"{machine['cpu']} ({machine['architecture']})"),
        ("instruction sets", ", ".join(machine["isa"]) or "not told"),
        ("caches", caches or "not told"),
        (
            "cores",
            f"{machine['cores']}, {len(machine['affinity'])} of them allowed by affinity, "
            + ("no quota" if quota is None else f"quota of {quota:g}")
            + f": {machine['threads_allowed']} threads",
        ),
        (
            "memory",
            f"{figures.size(machine['memory_bytes'])}"
            + ("" if free is None else f", {figures.size(free)} available")
            + (", no limit" if limit is None else f", limit of {figures.size(limit)}"),
        ),
        ("system", f"{machine['system']}, {machine['c_library']}, Python {machine['python']}"),
        ("allocator", "can be tuned" if machine["allocator_tunable"] else "cannot be tuned"),
    ]
    set_here = ", ".join(f"{name}={value}" for name, value in machine["environment"].items())
    return [*lines, *([("environment", set_here)] if set_here else [])]


def _binary(size_bytes: int) -> str:
    return f"{size_bytes // 2**20} MiB" if size_bytes >= 2**20 else f"{size_bytes // 2**10} KiB"
