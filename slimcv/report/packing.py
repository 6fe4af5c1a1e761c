"""Raw, zipped and packed bytes of a run, as lines of its before/after table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from slimcv.report import figures


def lines(report: Mapping[str, Any]) -> list[tuple[str, str, str, str]]:
    """(label, original, optimised, change) for each; none where the run did not pack.

    The file that was given, which may hold more than the checkpoint of it, stands against the ONNX file.
    """
    found = report.get("packing")
    if not found:
        return []
    original, onnx, packed = found["original"] or {}, found["onnx"], found["packed_bytes"]
    raw, zipped = original.get("bytes"), original.get("zipped_bytes")
    pairs = (
        ("model file, ONNX file", raw, onnx["bytes"]),
        ("both zipped", zipped, onnx["zipped_bytes"]),
        ("model file, packed", raw, packed),
        ("zipped, packed", zipped, packed),
    )
    return [
        (label, figures.size(before), figures.size(after), _smaller(before, after))
        for label, before, after in pairs
    ]


def sentence(report: Mapping[str, Any]) -> list[str]:
    """What zipped and packed mean, or why neither was tried, as a list of one; none in older reports."""
    if not report.get("packing"):
        reason = report.get("not_packed")
        return [f"neither zipped nor packed to compare sizes: {reason}"] if reason else []
    return [
        "zipped: deflate, level 9; packed: what slimcv pack makes of the ONNX file, without manifest and "
        "golden samples"
    ]


def _smaller(before: int | None, after: int) -> str:
    return figures.times(None if before is None else before / after, "smaller", "larger")
