"""What a report says of INT8: the rungs that were tried, the weights' range, the layers left in float."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from slimcv.report import figures

STEP = "quantize_int8"

HEADINGS = ("rung", "", "outputs move by", "top-1", "INT8 share", "took", "why")


def quantized(report: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """The steps that made an INT8 graph by rungs, whatever became of it."""
    for step in report["steps"]:
        if step["name"] == STEP and _details(step).get("rungs"):
            yield step


def rows(step: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """One row a rung, as `HEADINGS` says; training is the last one, where there was any."""
    found: list[tuple[str, ...]] = []
    for rung in _details(step)["rungs"]:
        found.append(
            (
                rung["name"],
                "taken" if rung["taken"] else "not taken",
                figures.share(rung["error"]),
                figures.percent(rung["top1"]),
                figures.share(rung["int8_share"]),
                figures.duration(rung["seconds"]),
                rung["reason"],
            )
        )
    after = step["measurement"]
    if after and "finetune_int8" in step["details"]["variant"]:
        share, blank = figures.share(after["int8_mac_share"]), figures.NOT_MEASURED
        top1, outcome = figures.percent(after["top1"]), step["outcome"]
        found.append(("recover", outcome, blank, top1, share, blank, f"trained with its rounding: {outcome}"))
    return found


def title(step: Mapping[str, Any]) -> str:
    """Which step it was; there are two where one was tried with training too."""
    return f"Step {step['number']}, {step['outcome']}"


def sentence(step: Mapping[str, Any]) -> str:
    """For which CPU the weights are, what stays in float and how answers were found."""
    made = _details(step)
    target = made.get("target_isa", "host")
    cpu = "this CPU" if target == "host" else f"CPUs with {target}"
    left = made.get("layers_left_in_float") or ()
    bits = "7 bits (reduced range)" if made["reduce_range"] else "8 bits"
    parts = [
        f"weights of {bits} for {cpu}",
        f"maps in ranges by {made.get('ranges', 'extremes')}",
        f"left in float for their sensitivity: {', '.join(left) or 'none'}",
    ]
    if made.get("computed_exactly"):
        parts.append(
            "8-bit sums overflow on this CPU and not there, so answers were computed exactly and not by this "
            "CPU's integer kernels; latency was measured here"
        )
    return "; ".join(parts)


def line(report: Mapping[str, Any]) -> str:
    """The last of those steps in a line; "" where there was none."""
    steps = list(quantized(report))
    if not steps:
        return ""
    tried = [rung["name"] for rung in _details(steps[-1])["rungs"]]
    taken = [rung["name"] for rung in _details(steps[-1])["rungs"] if rung["taken"]]
    return f"INT8: rungs tried {', '.join(tried)}, taken {', '.join(taken)}; {sentence(steps[-1])}"


def _details(step: Mapping[str, Any]) -> Mapping[str, Any]:
    found: Mapping[str, Any] = ((step["details"] or {}).get("variant") or {}).get(STEP) or {}
    return found
