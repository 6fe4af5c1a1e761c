"""A result as CSV: a line a variant, figures as numbers in the units their columns name."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from slimcv.report.reading import Finished

_MEASURED = (
    "runtime", "precision", "threads", "batch", "parameters", "buffers", "macs", "size_bytes",
    "throughput_ips", "peak_rss_bytes", "top1", "top5", "agreement", "train_seconds_per_epoch",
    "int8_mac_share",
)  # fmt: skip
_LATENCY = ("p50", "p90", "p99", "n", "spread")
_BOUNDS = ("value", "low", "high")
_OF_BENCH = {
    "ratio": _BOUNDS,
    "throughput_ratio": _BOUNDS,
    "paired": ("pictures", "lost", "gained", "difference", "low", "high", "p_value"),
}
"""What a row of a comparison holds in parts, a column each: `paired_p_value`."""

_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def render_csv(found: Sequence[Finished]) -> str:
    """All variants of all results with the columns of the first kind that comes; empty is "not measured"."""
    lines = [{"run": str(one.folder), **line} for one in found for line in _lines(one)]
    columns = list(dict.fromkeys(column for line in lines for column in line))
    stream = io.StringIO()
    writer = csv.DictWriter(stream, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows({column: _safe(value) for column, value in line.items()} for line in lines)
    return stream.getvalue()


def _lines(found: Finished) -> Iterator[dict[str, Any]]:
    document = found.document
    if found.kind == "run":
        for step in document["steps"]:
            yield {
                **{key: step[key] for key in ("number", "name", "outcome", "reason", "seconds")},
                **_flat(step["measurement"]),
            }
        for name in ("original_default_allocator", "best_unmodified", "original", "optimized"):
            if document[name] is not None:
                yield {"number": None, "name": name, "outcome": "final", **_flat(document[name])}
    elif found.kind == "ladder":
        for row in document["rows"]:
            training = {
                f"training_{key}": row["training"][key] for key in ("images_per_second", "peak_bytes")
            }
            yield {
                **{key: row[key] for key in ("name", "title", "outcome")},
                **_flat(row["measurement"]),
                **training,
            }
    elif found.kind == "bench":
        for row in document["rows"]:
            nested = {
                f"{of}_{key}": (row.get(of) or {}).get(key) for of, keys in _OF_BENCH.items() for key in keys
            }
            yield {**{key: value for key, value in row.items() if key not in _OF_BENCH}, **nested}
    elif found.kind == "profile":
        for layer in document["layers"]:
            yield {**layer, "output": "x".join(map(str, layer["output"] or ()))}
    elif found.kind == "difference":
        for pair in document["layers"]:
            yield {"name": pair["name"], **_side(pair, "before"), **_side(pair, "after")}
    else:
        yield from document["training"]["parts"]


def _side(pair: Mapping[str, Any], side: str) -> dict[str, Any]:
    """What one of two profiles says of a layer, `before_ms` and so on."""
    cost = pair[side] or {}
    return {f"{side}_{key}": cost.get(key) for key in ("ms", "macs", "parameters")}


def _flat(measurement: Mapping[str, Any] | None) -> dict[str, Any]:
    """A measurement's figures in one line, its latency as `latency_p50_ms` and so on."""
    values = measurement or {}
    latency = values.get("latency_ms") or {}
    return {
        **{key: values.get(key) for key in _MEASURED},
        **{
            f"latency_{key}" if key in ("n", "spread") else f"latency_{key}_ms": latency.get(key)
            for key in _LATENCY
        },
    }


def _safe(value: Any) -> Any:
    """Names come from anywhere: what a spreadsheet would compute is kept as text."""
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value
