"""Checks as JUnit XML, which every continuous integration shows as tests."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal
from xml.etree import ElementTree

from slimcv.report import sentences

Outcome = Literal["passed", "failed", "skipped"]

_FORBIDDEN = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""Characters that XML 1.0 cannot hold, however they are escaped."""


@dataclass(frozen=True)
class Case:
    """One check, as a test: its name, what came of it, why, and the seconds it took."""

    name: str
    outcome: Outcome
    detail: str = ""
    seconds: float = 0.0


def render_junit(suite: str, cases: Iterable[Case]) -> str:
    """A document with one test suite, ending in a line break."""
    listed = list(cases)
    counts = {kind: sum(case.outcome == kind for case in listed) for kind in ("failed", "skipped")}
    top = ElementTree.Element(
        "testsuite",
        name=_text(suite),
        tests=str(len(listed)),
        failures=str(counts["failed"]),
        skipped=str(counts["skipped"]),
        errors="0",
        time=f"{sum(case.seconds for case in listed):.3f}",
    )
    for case in listed:
        one = ElementTree.SubElement(
            top, "testcase", classname=_text(suite), name=_text(case.name), time=f"{case.seconds:.3f}"
        )
        if case.outcome == "failed":
            ElementTree.SubElement(one, "failure", message=_text(case.detail)).text = _text(case.detail)
        elif case.outcome == "skipped":
            ElementTree.SubElement(one, "skipped", message=_text(case.detail))
        elif case.detail:
            ElementTree.SubElement(one, "system-out").text = _text(case.detail)
    ElementTree.indent(top)
    return ElementTree.tostring(top, encoding="unicode", xml_declaration=True) + "\n"


def of_report(report: Mapping[str, Any]) -> list[Case]:
    """A case for each bound of the gate of a finished run, and one for each step.

    A step that was rejected or skipped is a skipped test: the run is judged by its gate alone.
    """
    gate, before, after = report["gate"], report["original"], report["optimized"]
    doubt = sentences.doubt(gate)
    said = f"gate {'met' if gate['met'] else 'missed'}{doubt and f', {doubt}'}"
    cases = [Case("gate", "passed" if gate["met"] else "failed", said)]
    cases += [_bound(name, gate.get(name), value) for name, value in _measured(before, after)]
    for step in report["steps"]:
        kept = step["outcome"] in ("accepted", "measured")
        detail = step["reason"] if kept else f"{step['outcome']}: {step['reason']}"
        name = f"step {step['number']} {step['name']}"
        cases.append(Case(name, "passed" if kept else "skipped", detail, step["seconds"]))
    return cases


def of_verification(found: Mapping[str, Any]) -> list[Case]:
    """A case for each check of a `Verification.as_json()`; what was only noted passes."""
    return [
        Case(check["name"], "failed" if check["outcome"] == "failed" else "passed", check["detail"])
        for check in found["checks"]
    ]


def _measured(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[tuple[str, float | None]]:
    def lost() -> float | None:
        known = before["top1"] is not None and after["top1"] is not None
        return before["top1"] - after["top1"] if known else None

    def faster() -> float | None:
        known = before["latency_ms"] and after["latency_ms"]
        return before["latency_ms"]["p50"] / after["latency_ms"]["p50"] if known else None

    return [("max_drop", lost()), ("min_speedup", faster()), ("max_size", after["size_bytes"])]


def _bound(name: str, bound: float | None, value: float | None) -> Case:
    if bound is None:
        return Case(name, "skipped", "no bound was given")
    if value is None:
        return Case(name, "skipped", "not measured")
    met = value >= bound if name == "min_speedup" else value <= bound
    return Case(name, "passed" if met else "failed", f"{value:.4g}, the bound is {bound:.12g}")


def _text(text: str) -> str:
    return _FORBIDDEN.sub("\N{REPLACEMENT CHARACTER}", text)
