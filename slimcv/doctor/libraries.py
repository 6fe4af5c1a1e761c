"""The libraries that slimcv asks for in its own metadata: installed or not, and whether they import."""

from __future__ import annotations

import importlib.metadata
import re
import subprocess
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

from slimcv.doctor.findings import Library
from slimcv.measure import threads

CORE = frozenset(
    {
        "jinja2",
        "markupsafe",
        "numpy",
        "pillow",
        "psutil",
        "pydantic",
        "pyyaml",
        "rich",
        "safetensors",
        "torch",
        "typer",
    }
)
"""Without these no command works, or none can write its page; a step that needs one of the others is
skipped or refused."""

_NAME = re.compile(r"^[A-Za-z0-9._-]+")
_EXTRA = re.compile(r"extra\s*==\s*['\"]([^'\"]+)['\"]")
_FOR_DEVELOPERS = "dev"
_PARTS = {"neural-compressor": "neural_compressor.torch.quantization", "pillow": "PIL.Image"}
"""What is imported of a distribution whose own package imports nothing yet."""

_SECONDS = 120.0


def examine() -> tuple[Library, ...]:
    """Every library slimcv requires, then those of its optional parts, each imported on its own."""
    names, owners = wanted(), importlib.metadata.packages_distributions()
    with ThreadPoolExecutor(threads.available()) as pool:
        return tuple(pool.map(lambda name: _examined(name, names[name], owners), names))


def wanted() -> dict[str, str | None]:
    """Names of distributions and the optional part they belong to, from slimcv's metadata or `CORE`."""
    try:
        requirements = importlib.metadata.requires("slimcv") or []
    except importlib.metadata.PackageNotFoundError:
        requirements = sorted(CORE)
    found: dict[str, str | None] = {}
    for requirement in requirements:
        name, extra = _NAME.match(requirement), _EXTRA.search(requirement)
        if name is None or (extra is not None and extra[1] == _FOR_DEVELOPERS):
            continue
        found.setdefault(name[0].lower(), extra[1] if extra is not None else None)
    return dict(sorted(found.items(), key=lambda one: (one[1] or "", one[0])))


def _examined(name: str, extra: str | None, owners: Mapping[str, list[str]]) -> Library:
    try:
        version = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return Library(name, None, extra, name in CORE)
    return Library(name, version, extra, name in CORE, problem(module_of(name, owners)))


def module_of(name: str, owners: Mapping[str, list[str]]) -> str:
    """The module to import of a distribution, many of which have another name.

    `owners` are the distributions that each module comes from (`importlib.metadata.packages_distributions`).
    """
    if name in _PARTS:
        return _PARTS[name]
    wanted = _normal(name)
    found = [
        module
        for module, distributions in owners.items()
        if wanted in map(_normal, distributions) and module.isidentifier()
    ]
    return min(found, key=lambda one: (one.lower() != wanted, one.startswith("_"), one), default=wanted)


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "_", name).lower()


def problem(module: str) -> str | None:
    """Why a module cannot be imported, the last line of what Python says; None where it can.

    In a process of its own: a broken library may end the process, and what it loads stays.
    """
    try:
        done = subprocess.run(
            # -P: a file called torch.py in the working directory must not be taken for the library.
            [sys.executable, "-P", "-c", f"import {module}"],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_SECONDS,
        )
    except subprocess.TimeoutExpired:
        return f"importing it takes more than {_SECONDS:.0f} s"
    if done.returncode == 0:
        return None
    lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
    return (
        lines[-1]
        if lines and done.returncode > 0
        else f"the process that imports it ends with {done.returncode}"
    )
