"""The record of what was shipped, and why it was that."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from slimcv import runtimes
from slimcv.bakeoff import form_of, runtime_of
from slimcv.gate import Verdict
from slimcv.measure import latency, size
from slimcv.results import Measurement, Record
from slimcv.rounding import rounded

INACCURATE = "its accuracy misses the gate"
TOO_LARGE = "its file is larger than max_size"

MISSED = "gate missed: "
"""How the reason of a variant that is not shipped begins."""

SHIP = "ship"
"""The name of the record that says what was shipped."""


def record(
    number: int,
    original: Measurement,
    optimized: Measurement,
    *,
    verdict: Verdict,
    details: dict[str, Any],
    last_resort: bool = False,
) -> Record:
    """The record of step `ship`."""
    return Record(
        number,
        -1,
        "ship",
        "accepted" if verdict.accepted or last_resort else "rejected",
        _reason(verdict, last_resort=last_resort),
        0.0,
        measurement=optimized,
        before=original,
        details=details,
    )


def as_asked(verdict: Verdict, otherwise: str | None) -> Verdict:
    """The verdict, where what is shipped is what was asked for; `otherwise` says why it is not."""
    if otherwise is None:
        return verdict
    reason = "; ".join(filter(None, (otherwise, verdict.reason)))
    return Verdict(False, reason, decided=True, judged=verdict.judged)


def _reason(verdict: Verdict, *, last_resort: bool) -> str:
    reason = verdict.reason
    if verdict.doubt and verdict.doubt not in reason:
        reason = f"{reason} ({verdict.doubt})"
    if verdict.accepted:
        return f"gate met: {reason}" if reason else "gate met"
    if last_resort:
        return f"no variant met the gate, the lossless one is shipped: {reason}"
    return f"{MISSED}{reason}"


def refused(
    files: Mapping[str, Path], accurate: Collection[str], *, max_size: int | None = None
) -> dict[str, str]:
    """Which candidates are not served whatever their speed, and why; machine code alone is what was asked.

    Of the others those larger than `max_size` bytes, where one of them is not.
    """
    refused = {}
    for name in files:
        if accurate and form_of(name) not in accurate:
            refused[name] = INACCURATE
        elif runtime_of(name) == runtimes.NATIVE and {*map(runtime_of, files)} != {runtimes.NATIVE}:
            refused[name] = "machine code, served only with --runtime aotinductor"
    if max_size is not None:
        left = {name: size.artifact_bytes(path) for name, path in files.items() if name not in refused}
        if any(found <= max_size for found in left.values()):
            refused |= {name: TOO_LARGE for name, found in left.items() if found > max_size}
    return refused


def race(files: dict[str, Path], timings: dict[str, latency.Timing], best: str) -> str:
    """Which of several files won, in words."""
    found = {name: timings[name].latency for name in files if name != best}
    others = [f"{name} {rounded(one.p50, one.spread * one.p50)} ms" for name, one in found.items()]
    return f"served is {best}, beside {', '.join(others)}" if others else ""
