"""The rungs of INT8 in every form of the report: what was tried, what was taken, what stays in float."""

import dataclasses

import pytest

from slimcv import report
from slimcv.report import rungs
from slimcv.report.html import render_html
from slimcv.report.reading import of
from slimcv.results import Record

PLAIN = {
    "name": "plain",
    "taken": True,
    "met": False,
    "reason": "gate missed: outputs move by 21.0 %, top-1 90.1 % on 128 pictures",
    "seconds": 12.0,
    "error": 0.21,
    "top1": 90.1,
    "int8_share": 1.0,
}
RANGES = {**PLAIN, "name": "ranges", "taken": False, "error": 0.25, "reason": "not better"}
MIXED = {**PLAIN, "name": "mixed", "met": True, "error": 0.04, "int8_share": 0.962, "reason": "stem in float"}
LATE = {
    **PLAIN, "name": "bias", "taken": False, "error": None, "top1": None, "int8_share": None,
    "reason": "the time for the rungs was up",
}  # fmt: skip

MADE = {
    "target_isa": "avx2",
    "reduce_range": True,
    "ranges": "extremes",
    "layers_left_in_float": ["stem.conv", "a|b<i>"],
    "rungs": [PLAIN, RANGES, LATE, MIXED],
}


@pytest.fixture
def make(make_report, optimized):
    """A report whose INT8 step has these details in place of the made-up ones."""

    def record(trained=False, **changes):
        variant = {"quantize_int8": {**MADE, **changes}, **({"finetune_int8": {}} if trained else {})}
        measured = dataclasses.replace(optimized, top1=94.4)
        return Record(4, 2, "quantize_int8", "accepted", "", 60.0, measurement=measured,
                      details={"variant": variant})  # fmt: skip

    return lambda **changes: make_report(records=[record(**changes)])


def text_of(document, tmp_path):
    """All three forms."""
    return {
        "markdown": report.render(document, "markdown"),
        "html": render_html([of(document, tmp_path, said=None)]),
        "text": " ".join(report.render(document, "text").split()),
    }


def test_every_rung_stands_in_markdown_and_html_with_its_figures(make, tmp_path):
    forms = text_of(make(), tmp_path)
    for form in ("markdown", "html"):
        for words in ("plain", "ranges", "mixed", "not taken", "96.2 %", "21.0 %", "stem in float"):
            assert words in forms[form], (form, words)
        assert "the time for the rungs was up" in forms[form]


def test_range_and_layers_in_float_are_named_everywhere_and_stay_text(make, tmp_path):
    forms = text_of(make(), tmp_path)
    for form, text in forms.items():
        assert "weights of 7 bits (reduced range) for CPUs with avx2" in text, form
        assert "stem.conv" in text, form
    assert "a|b<i>" not in forms["markdown"]
    assert "<i>" not in forms["html"]


def test_a_line_on_the_terminal_says_which_rungs_were_taken(make, tmp_path):
    assert "rungs tried plain, ranges, bias, mixed, taken plain, mixed" in text_of(make(), tmp_path)["text"]


def test_answers_that_this_cpu_cannot_give_are_said_to_be_computed(make, tmp_path):
    made = make(target_isa="avx512_vnni", reduce_range=False, computed_exactly=True)
    assert all("computed exactly" in text for text in text_of(made, tmp_path).values())
    assert not any("computed exactly" in text for text in text_of(make(), tmp_path).values())


def test_training_is_the_last_rung(make):
    (step,) = rungs.quantized(make(trained=True))
    assert [row[0] for row in rungs.rows(step)][-2:] == ["mixed", "recover"]
    assert rungs.rows(step)[-1][3] == "94.4 %"


def test_runs_without_rungs_say_nothing(make_report):
    assert rungs.line(make_report()) == ""
    assert "rung by rung" not in report.render(make_report(), "markdown")
