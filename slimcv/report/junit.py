"""Checks as JUnit XML, which every continuous integration shows as tests."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from xml.etree import ElementTree

from slimcv.errors import SlimcvError
from slimcv.report import sentences
from slimcv.writing import write_text

log = logging.getLogger("slimcv")

Outcome = Literal["passed", "failed", "skipped", "error"]
"""An error is a check that could not be made."""

_BOUNDS = ("max_drop", "min_speedup", "max_size")

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
    kinds = ("failed", "skipped", "error")
    counts = {kind: sum(case.outcome == kind for case in listed) for kind in kinds}
    top = ElementTree.Element(
        "testsuite",
        name=_text(suite),
        tests=str(len(listed)),
        failures=str(counts["failed"]),
        skipped=str(counts["skipped"]),
        errors=str(counts["error"]),
        time=f"{sum(case.seconds for case in listed):.3f}",
    )
    for case in listed:
        one = ElementTree.SubElement(
            top, "testcase", classname=_text(suite), name=_text(case.name), time=f"{case.seconds:.3f}"
        )
        if case.outcome in ("failed", "error"):
            kind = "failure" if case.outcome == "failed" else "error"
            ElementTree.SubElement(one, kind, message=_text(case.detail)).text = _text(case.detail)
        elif case.outcome == "skipped":
            ElementTree.SubElement(one, "skipped", message=_text(case.detail))
        elif case.detail:
            ElementTree.SubElement(one, "system-out").text = _text(case.detail)
    ElementTree.indent(top)
    return ElementTree.tostring(top, encoding="unicode", xml_declaration=True) + "\n"


@contextmanager
def errors_told(path: Path | None, suite: str) -> Iterator[None]:
    """Within it a SlimcvError is written to `path`, if there is one, as a test, and goes on its way."""
    try:
        yield
    except SlimcvError as error:
        case = Case(suite.split()[1], "error", f"{error.message}; {error.hint}")
        try:
            write_junit(path, suite, [case])
        except SlimcvError as unwritten:
            log.warning("%s", unwritten.message)  # What went wrong first is what has to be told.
        raise


def write_junit(path: Path | None, suite: str, cases: Iterable[Case]) -> None:
    """Write the cases to `path`, if there is one, in a folder that is made. Raises SlimcvError."""
    if path is None:
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, render_junit(suite, cases))
    except OSError as error:
        raise SlimcvError(f"{path}: {error.strerror or error}", "name another file for the tests") from error


def of_report(report: Mapping[str, Any]) -> list[Case]:
    """A case for each bound of the gate of a finished run, and one for each step.

    A step that was rejected or skipped is a skipped test: the run is judged by its gate alone.
    """
    gate = report["gate"]
    doubt = sentences.doubt(gate)
    why = [gate.get("not_as_asked"), doubt]
    said = ", ".join(filter(None, [f"gate {'met' if gate['met'] else 'missed'}", *why]))
    cases = [Case("gate", "passed" if gate["met"] else "failed", said)]
    judged = {bound["name"]: bound for bound in gate["bounds"]}
    cases += [_bound(name, judged.get(name)) for name in _BOUNDS]
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


def _bound(name: str, judged: Mapping[str, Any] | None) -> Case:
    if judged is None:
        return Case(name, "skipped", "no bound was given")
    if judged["kept"] is None:
        return Case(name, "skipped", judged["reason"])
    return Case(name, "passed" if judged["kept"] else "failed", judged["reason"])


def _text(text: str) -> str:
    return _FORBIDDEN.sub("\N{REPLACEMENT CHARACTER}", text)
