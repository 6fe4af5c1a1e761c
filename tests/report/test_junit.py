"""JUnit XML: each bound of the gate a test, and any text a name."""

from xml.etree import ElementTree

from slimcv.report.junit import Case, of_report, render_junit

REPORT = {
    "gate": {"max_drop": 1.0, "min_speedup": 5.0, "max_size": None, "met": False},
    "original": {"top1": 95.0, "latency_ms": {"p50": 40.0}, "size_bytes": 100},
    "optimized": {"top1": 94.5, "latency_ms": {"p50": 10.0}, "size_bytes": 10},
    "steps": [
        {"number": 0, "name": "original", "outcome": "measured", "reason": "", "seconds": 1.0},
        {"number": 1, "name": "fuse", "outcome": "rejected", "reason": "no gain", "seconds": 2.5},
    ],
}


def test_each_bound_and_each_step_is_a_case():
    found = {case.name: (case.outcome, case.detail) for case in of_report(REPORT)}
    assert found["gate"][0] == "failed"
    assert found["max_drop"] == ("passed", "0.5, the bound is 1")
    assert found["min_speedup"] == ("failed", "4, the bound is 5")
    assert found["max_size"] == ("skipped", "no bound was given")
    assert found["step 0 original"][0] == "passed"
    assert found["step 1 fuse"] == ("skipped", "rejected: no gain")


def test_what_was_not_measured_is_skipped():
    blind = {**REPORT, "optimized": {**REPORT["optimized"], "top1": None}}
    assert {case.name: case.outcome for case in of_report(blind)}["max_drop"] == "skipped"


def test_the_document_counts_and_survives_any_text():
    cases = [Case('<a> & "b"\x00', "failed", "\x1b[31mred"), Case("c", "passed", seconds=1.5)]
    suite = ElementTree.fromstring(render_junit("m\x0b.pt", cases))
    assert (suite.get("tests"), suite.get("failures"), suite.get("time")) == ("2", "1", "1.500")
    assert suite[0].get("name").startswith('<a> & "b"')
    assert suite[0][0].tag == "failure"


def test_a_gate_that_is_not_decided_says_so():
    gate = {**REPORT["gate"], "decided": False, "undecided": ["max_drop"], "pictures": 200}
    (case, *_) = of_report({**REPORT, "gate": {**gate, "met": True, "pictures_needed": 900}})
    assert case.outcome == "passed"
    assert case.detail == "gate met, not decidable with n = 200 pictures, about 900 are needed"
