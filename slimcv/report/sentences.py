"""What a report says in sentences: speed, size and accuracy in one line, the gate, how it was measured."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from slimcv.gate import doubted
from slimcv.report import comparison, figures
from slimcv.report.figures import NOT_MEASURED


def headline(report: Mapping[str, Any]) -> str:
    """Speed, size and accuracy in one line."""
    words = []
    speed = comparison.speed_of(report).partition(" (")[0]
    if speed == comparison.WITHIN:
        words.append(f"speed unchanged {speed}")
    elif speed != NOT_MEASURED:
        words.append(speed)
    words.append(
        f"parameters {figures.reduction(report['original']['parameters'], report['optimized']['parameters'])}"
    )
    top1 = report["ratios"].get("top1")
    words.append(
        "accuracy not measured"
        if top1 is None
        else f"top-1 {figures.percent(report['optimized']['top1'])} ({figures.points(top1)})"
    )
    return ", ".join(words)


def gate(report: Mapping[str, Any]) -> str:
    """Whether the gate was met, by which figures."""
    bounds, ratios = report["gate"], report["ratios"]
    words = list(filter(None, [bounds.get("not_as_asked")]))
    if bounds["max_drop"] is not None:
        lost = ratios.get("top1")
        found = "accuracy not measured" if lost is None else f"measured: {figures.points(lost)}"
        found += _paired_words(report["optimized"].get("paired"))
        if lost is None and report["optimized"]["agreement"] is not None:
            found += f", {_agreement(report['optimized'])}"
        unit = "point" if bounds["max_drop"] == 1 else "points"
        words.append(f"top-1 may drop by at most {bounds['max_drop']:g} {unit} ({found})")
    if bounds["min_speedup"] is not None:
        found = comparison.speed_of(report)
        words.append(f"at least {bounds['min_speedup']:g}× faster (measured: {found})")
    if bounds["max_size"] is not None:
        found = figures.size(report["optimized"]["size_bytes"])
        words.append(f"at most {figures.size(bounds['max_size'])} on disk (measured: {found})")
    if not words:
        return "gate: none given"
    verdict = {True: "gate met", False: "gate NOT met", None: "gate not judged"}[bounds["met"]]
    open_question = doubt(bounds)
    if open_question:
        verdict += f" ({open_question})"
    return f"{verdict}: {'; '.join(words)}"


def doubt(gate: Mapping[str, Any]) -> str:
    """Why a report's gate is not decided by what was measured, in words; "" where it is or nobody knows."""
    if gate.get("decided") is not False:
        return ""
    return doubted(gate["undecided"], pictures=gate["pictures"], needed=gate["pictures_needed"])


def verdict(gate: Mapping[str, Any]) -> str:
    """What became of a report's gate in a word or two, and why that is open where it is."""
    words = {True: "met", False: "missed", None: "not judged"}[gate["met"]]
    open_question = doubt(gate)
    return f"{words}, {open_question}" if open_question else words


def top1(measured: Mapping[str, Any] | None) -> str:
    """A top-1 and, where the answers to the same pictures are known, how sure its distance is."""
    found = measured or {}
    pair = found.get("paired")
    between = f" ({figures.points_between(pair['low'], pair['high'])})" if pair else ""
    return f"{figures.percent(found.get('top1'))}{between}"


def paired(found: Mapping[str, Any] | None) -> str:
    """A difference of top-1 from the first or the original, its 95 % interval and McNemar's p."""
    if found is None:
        return NOT_MEASURED
    bounds = figures.points_between(found["low"], found["high"])
    return f"{figures.points(found['difference'])} ({bounds}), {figures.p_value(found['p_value'])}"


def accuracy(report: Mapping[str, Any]) -> str:
    """How sure the difference of top-1 is; "" where nobody knows and where the gate's sentence says it."""
    found = report["optimized"].get("paired")
    if found is None or report["gate"]["max_drop"] is not None:
        return ""
    return f"top-1 against the original: {figures.points(found['difference'])}{_paired_words(found)}"


def _paired_words(paired: Mapping[str, Any] | None) -> str:
    """How sure the difference of top-1 is, and what it comes from."""
    if paired is None:
        return ""
    return (
        f", 95 % interval {figures.points_between(paired['low'], paired['high'])}; of "
        f"{paired['pictures']:,} pictures {paired['lost']:,} only the original gets right, "
        f"{paired['gained']:,} only the optimised, {figures.p_value(paired['p_value'])}"
    )


def method(report: Mapping[str, Any]) -> str:
    """How the latencies were taken: batch, threads, samples, spread."""
    parts = []
    for label, key in (("original", "original"), ("optimised", "optimized")):
        latency = report[key]["latency_ms"]
        if latency is not None:
            parts.append(f"{label} {latency['n']} samples, spread ±{figures.share(latency['spread'])}")
    if not parts:
        return "latency not measured"
    after = report["optimized"]
    threads = f"{after['threads']} thread{'s' if after['threads'] != 1 else ''}"
    if comparison.interval(report, "latency_p50"):
        parts.append("in brackets the 95 % interval")
    return f"latency: batch {after['batch']}, {threads}, warm-up discarded, interleaved; {'; '.join(parts)}"


def accuracy_note(step: Mapping[str, Any]) -> str:
    """What stands in for top-1 where no labels were there to measure it."""
    after = step.get("measurement")
    if not after or after["top1"] is not None or after["agreement"] is None:
        return ""
    return f"accuracy not measured, {_agreement(after)}"


def no_data(report: Mapping[str, Any]) -> str:
    """What a run without pictures can say of accuracy, and what it cannot."""
    pictures = report["optimized"].get("synthetic_pictures")
    if pictures is None:
        return "No data was given: accuracy not measured."
    return (
        f"No data was given: accuracy not measured. A max_drop bounds how many of {pictures} synthetic "
        "pictures (noise with the spectrum of photographs) get another answer than the original's. That "
        "shows a damaged network, not how accurate a sound one is: slimcv verify --data measures it on "
        "labelled pictures."
    )


def _agreement(measured: Mapping[str, Any]) -> str:
    said = f"same answer as the original on {figures.percent(measured['agreement'])}"
    words = figures.asked(measured.get("synthetic_pictures"))
    return f"{said} of {words}" if words else said
