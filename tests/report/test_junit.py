"""JUnit XML: each bound of the gate a test, and any text a name."""

from dataclasses import asdict, replace
from xml.etree import ElementTree

import pytest

from slimcv.errors import SlimcvError
from slimcv.gate import Gate, judge
from slimcv.report.junit import Case, errors_told, of_report, render_junit, write_junit
from slimcv.results import Latency, Measurement, Paired

STEPS = [
    {"number": 0, "name": "original", "outcome": "measured", "reason": "", "seconds": 1.0},
    {"number": 1, "name": "fuse", "outcome": "rejected", "reason": "no gain", "seconds": 2.5},
]
LABELLED = Measurement(1, 0, 1, size_bytes=100, latency_ms=Latency(40.0, 41.0, None, 20, 0.01), top1=95.0)


def report(gate, candidate, original=LABELLED):
    """A report's gate, judged as a session judges what it ships."""
    verdict = judge(gate, candidate=candidate, original=original)
    bounds = [asdict(one) for one in verdict.judged]
    return {"gate": {**gate.model_dump(), "met": verdict.accepted, "bounds": bounds}, "steps": STEPS}


def cases(gate, candidate, original=LABELLED):
    return {case.name: (case.outcome, case.detail) for case in of_report(report(gate, candidate, original))}


def measured(**changes):
    return replace(LABELLED, **changes)


def test_each_bound_and_each_step_is_a_case():
    faster = measured(top1=94.5, latency_ms=Latency(10.0, 11.0, None, 20, 0.01))
    found = cases(Gate(max_drop=1, min_speedup=5), faster)
    assert found["gate"][0] == "failed"
    assert found["max_drop"] == ("passed", "top-1 0.5 points below the original, the bound is 1")
    assert found["min_speedup"][0] == "failed"
    assert found["min_speedup"][1].endswith("× the original's speed, the bound is 5")
    assert found["max_size"] == ("skipped", "no bound was given")
    assert found["step 0 original"][0] == "passed"
    assert found["step 1 fuse"] == ("skipped", "rejected: no gain")


def test_without_labels_a_drop_that_was_judged_by_agreement_fails_as_the_gate_does():
    blind = replace(LABELLED, top1=None)
    found = cases(Gate(max_drop=1), replace(blind, agreement=97.0), blind)
    assert (found["gate"][0], found["max_drop"][0]) == ("failed", "failed")
    assert "no labels: 3.0 % of the answers" in found["max_drop"][1]
    assert cases(Gate(max_drop=5), replace(blind, agreement=97.0), blind)["max_drop"][0] == "passed"


def test_what_was_not_measured_is_skipped_unless_it_has_to_be_shown():
    blind = measured(top1=None)
    assert cases(Gate(max_drop=1), blind)["max_drop"] == ("skipped", "not measured")
    assert cases(Gate(max_drop=1, confidence=0.95), blind)["max_drop"] == ("failed", "not measured")


def test_a_bound_that_is_kept_but_not_shown_to_be_fails_where_confidence_is_asked_for():
    few = measured(top1=94.5, paired=Paired.counted(2, 1, 200))
    assert cases(Gate(max_drop=1), few)["max_drop"][0] == "passed"
    found = cases(Gate(max_drop=1, confidence=0.95), few)
    assert (found["gate"][0], found["max_drop"][0]) == ("failed", "failed")
    assert found["max_drop"][1].endswith("the bound is 1; not shown with 95 % confidence")


def test_what_ends_a_command_early_is_an_error_in_the_file(tmp_path):
    path = tmp_path / "gate.xml"
    with pytest.raises(SlimcvError), errors_told(path, "slimcv optimize m.pt"):
        raise SlimcvError("no such file m.pt", "name one")
    suite = ElementTree.parse(path).getroot()
    assert (suite.get("tests"), suite.get("failures"), suite.get("errors")) == ("1", "0", "1")
    assert suite[0][0].tag == "error"
    assert suite[0][0].get("message") == "no such file m.pt; name one"
    with pytest.raises(SlimcvError), errors_told(None, "slimcv optimize m.pt"):
        raise SlimcvError("no such file m.pt", "name one")


def test_the_file_s_folder_is_made_and_one_that_cannot_be_written_hides_nothing(tmp_path):
    with (
        pytest.raises(SlimcvError, match="no such"),
        errors_told(tmp_path / "new" / "gate.xml", "slimcv verify m"),
    ):
        raise SlimcvError("no such bundle m", "name one")
    assert (tmp_path / "new" / "gate.xml").is_file()
    with pytest.raises(SlimcvError, match="no such"), errors_told(tmp_path, "slimcv verify m"):
        raise SlimcvError("no such bundle m", "name one")
    with pytest.raises(SlimcvError, match="directory") as refused:
        write_junit(tmp_path, "slimcv verify m", [])
    assert refused.value.hint == "name another file for the tests"


def test_the_document_counts_and_survives_any_text():
    told = [Case('<a> & "b"\x00', "failed", "\x1b[31mred"), Case("c", "passed", seconds=1.5)]
    suite = ElementTree.fromstring(render_junit("m\x0b.pt", told))
    assert (suite.get("tests"), suite.get("failures"), suite.get("time")) == ("2", "1", "1.500")
    assert suite[0].get("name").startswith('<a> & "b"')
    assert suite[0][0].tag == "failure"


def test_a_gate_missed_because_another_runtime_serves_says_so():
    found = report(Gate(max_drop=1), measured())
    gate = {**found["gate"], "met": False, "not_as_asked": "there is no file for openvino"}
    case, drop, *_ = of_report({**found, "gate": gate})
    assert (case.outcome, case.detail) == ("failed", "gate missed, there is no file for openvino")
    assert drop.outcome == "passed"


def test_a_gate_that_is_not_decided_says_so():
    found = report(Gate(max_drop=1), measured())
    gate = {**found["gate"], "decided": False, "undecided": ["max_drop"], "pictures": 200}
    (case, *_) = of_report({**found, "gate": {**gate, "met": True, "pictures_needed": 900}})
    assert case.outcome == "passed"
    assert case.detail == "gate met, not decidable with n = 200 pictures, about 900 are needed"
