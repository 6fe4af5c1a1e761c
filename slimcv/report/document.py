"""The report as plain data: what report.json holds, and the arithmetic of its ratios."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, is_dataclass
from typing import TYPE_CHECKING, Any

from slimcv.report import figures
from slimcv.report.schema import Report
from slimcv.results import SCHEMA_VERSION, Artifact, Latency, Measurement, Record

if TYPE_CHECKING:
    from slimcv.packed import Compared

INTERVALS = ("latency_p50", "allocator_alone", "runtime_alone", "beyond_runtime")
"""The ratios that are known with an interval."""


def build(
    *,
    model: Mapping[str, Any],
    recipe: Mapping[str, Any],
    environment: Mapping[str, Any],
    gate: Mapping[str, Any],
    original: Measurement,
    optimized: Measurement,
    records: Sequence[Record],
    artifacts: Sequence[Artifact],
    seconds: float,
    original_default_allocator: Measurement | None = None,
    best_unmodified: Measurement | None = None,
    intervals: Mapping[str, Mapping[str, float]] | None = None,
    data: Mapping[str, Any] | None = None,
    command: Sequence[str] | None = None,
    packing: Mapping[str, Any] | Compared | str | None = None,
) -> dict[str, Any]:
    """The report of a run as strict JSON data, checked against `slimcv.report.schema.Report`.

    model: `source`, `sha256`, `arch`, `input` ("3x224x224"), `mean`, `std`, `classes`: whatever is known.
    recipe: `name`, `text`, and what `--set` changed.
    environment: what slimcv.measure tells of machine and versions.
    gate: `max_drop` (points), `min_speedup`, `max_size` (bytes), `met` (null where it could not be judged),
    `confidence`, what slimcv.gate.Verdict says of `decided`, `undecided` and `pictures_needed`, and why what
    is served is not what was asked for (`not_as_asked`).
    intervals: `low` and `high` of ratios of latencies, by the ratio's name.
    original: eager PyTorch with the allocator tuned, base of every ratio; `original_default_allocator`: the
    same as its user runs it; `best_unmodified`: the fastest runtime the untouched network was tried in.
    data: `source`, pictures in each split, `broken` pictures; None without `--data`.
    command: the command line as typed, for "how to repeat". seconds: wall time of the whole run.
    packing: what slimcv.packed.compared found, or in a sentence why it did not.
    """
    report = {
        "schema_version": SCHEMA_VERSION,
        "model": model,
        "recipe": recipe,
        "environment": environment,
        "gate": _gate(gate, optimized),
        "original": original,
        "optimized": optimized,
        "ratios": {
            **ratios(
                original,
                optimized,
                original_default_allocator=original_default_allocator,
                best_unmodified=best_unmodified,
            ),
            **_bounds(intervals or {}),
        },
        "steps": [step_entry(record) for record in records],
        "artifacts": artifacts,
        "original_default_allocator": original_default_allocator,
        "best_unmodified": best_unmodified,
        "data": data,
        "command": command,
        "packing": None if isinstance(packing, str) else packing,
        "not_packed": packing if isinstance(packing, str) else None,
        "seconds": seconds,
    }
    plain: dict[str, Any] = as_plain(report)
    # Validated in JSON's own terms, where 1 is a good float.
    Report.model_validate_json(json.dumps(plain, allow_nan=False))
    return plain


def step_entry(record: Record) -> dict[str, Any]:
    """One element of the report's `steps`."""
    return {
        "number": record.number,
        "name": record.step,
        "outcome": record.outcome,
        "reason": record.reason,
        "seconds": record.seconds,
        "measurement": as_plain(record.measurement),
        "before": as_plain(record.before),
        "details": as_plain(record.details),
    }


def ratios(
    original: Measurement,
    optimized: Measurement,
    *,
    original_default_allocator: Measurement | None = None,
    best_unmodified: Measurement | None = None,
) -> dict[str, float | None]:
    """Improvement factors (above 1 is better), accuracy differences in points; None without a side."""
    alone = _p50(best_unmodified)
    return {
        "latency_p50": _quotient(_p50(original), _p50(optimized)),
        "latency_p90": _quotient(_p90(original), _p90(optimized)),
        "latency_p99": _quotient(_p99(original), _p99(optimized)),
        "throughput": _quotient(optimized.throughput_ips, original.throughput_ips),
        "parameters": _quotient(original.parameters, optimized.parameters),
        "macs": _quotient(original.macs, optimized.macs),
        "size_bytes": _quotient(original.size_bytes, optimized.size_bytes),
        "peak_rss_bytes": _quotient(figures.seen(original.peak_rss_bytes), optimized.peak_rss_bytes),
        "train_seconds_per_epoch": _quotient(
            original.train_seconds_per_epoch, optimized.train_seconds_per_epoch
        ),
        "top1": _difference(original.top1, optimized.top1),
        "top5": _difference(original.top5, optimized.top5),
        "allocator_alone": _quotient(_p50(original_default_allocator), _p50(original)),
        "runtime_alone": _quotient(_p50(original), alone),
        "beyond_runtime": _quotient(alone, _p50(optimized)),
    }


def _gate(gate: Mapping[str, Any], optimized: Measurement) -> dict[str, Any]:
    known = {key: gate.get(key) for key in ("max_drop", "min_speedup", "max_size", "met", "confidence")}
    return {
        **known,
        "decided": gate.get("decided"),
        "undecided": gate.get("undecided") or (),
        "not_as_asked": gate.get("not_as_asked"),
        "bounds": gate.get("bounds") or (),
        "pictures": optimized.paired.pictures if optimized.paired else None,
        "pictures_needed": gate.get("pictures_needed"),
    }


def _bounds(intervals: Mapping[str, Mapping[str, float]]) -> dict[str, float | None]:
    """`latency_p50_low`, `latency_p50_high` and so on, None where there is no interval."""
    return {
        f"{name}_{bound}": intervals.get(name, {}).get(bound)
        for name in INTERVALS
        for bound in ("low", "high")
    }


def within_spread(before: Latency, after: Latency) -> bool:
    """The two medians differ by no more than their spreads together, so that no difference was measured."""
    noise = 1 + before.spread + after.spread
    return 1 / noise <= before.p50 / after.p50 <= noise


def as_plain(value: Any) -> Any:
    """Anything as strict JSON data: tuples become lists, paths text, NaN and infinities null."""
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if is_dataclass(value) and not isinstance(value, type):
        return as_plain(asdict(value))
    if isinstance(value, Mapping):
        return {str(key): as_plain(item) for key, item in value.items()}
    if isinstance(value, set | frozenset):
        return sorted(as_plain(item) for item in value)
    if isinstance(value, Sequence) and not isinstance(value, bytes | bytearray):
        return [as_plain(item) for item in value]
    if hasattr(value, "tolist"):
        return as_plain(value.tolist())
    return str(value)


def _p50(measurement: Measurement | None) -> float | None:
    return measurement.latency_ms.p50 if measurement is not None and measurement.latency_ms else None


def _p90(measurement: Measurement) -> float | None:
    return measurement.latency_ms.p90 if measurement.latency_ms else None


def _p99(measurement: Measurement) -> float | None:
    return measurement.latency_ms.p99 if measurement.latency_ms else None


def _quotient(above: float | None, below: float | None) -> float | None:
    if above is None or not below:
        return None
    return above / below


def _difference(before: float | None, after: float | None) -> float | None:
    return None if before is None or after is None else after - before
