"""Raw, zipped and packed bytes of a run stand in every form of its report."""

import json
from pathlib import Path

import pytest

from slimcv import report
from slimcv.packed import Compared, Sizes
from slimcv.report import packing
from slimcv.report.html import render_html
from slimcv.report.reading import of

FOUND = Compared(
    Sizes("model.pt", 210_377_874, 195_000_000), Sizes("model.onnx", 330_000, 260_000), packed_bytes=120_000
)
LINES = [
    ("model file, ONNX file", "210 MB", "330 kB", "638× smaller"),
    ("both zipped", "195 MB", "260 kB", "750× smaller"),
    ("model file, packed", "210 MB", "120 kB", "1,750× smaller"),
    ("zipped, packed", "195 MB", "120 kB", "1,620× smaller"),
]


def test_the_original_stands_there_raw_and_zipped_beside_what_was_made_of_it(make_report):
    made = make_report(packing=FOUND)
    assert made["packing"] == {
        "original": {"path": "model.pt", "bytes": 210_377_874, "zipped_bytes": 195_000_000},
        "onnx": {"path": "model.onnx", "bytes": 330_000, "zipped_bytes": 260_000},
        "packed_bytes": 120_000,
    }
    assert packing.lines(json.loads(json.dumps(made))) == LINES


def test_text_markdown_and_page_have_the_lines_and_say_what_they_mean(make_report):
    made = make_report(packing=FOUND)
    text, markdown = (report.render(made, format) for format in ("text", "markdown"))
    page = render_html([of(made, Path("leaves"))])
    for line in LINES:
        assert any(all(word in row for word in line) for row in text.splitlines())
        assert "| " + " | ".join(line) + " |" in markdown
    what = page[page.index("What the bytes are") :]
    assert all(word in what for line in LINES for word in line)
    for found in (text, markdown, page):
        assert "eflate, level 9" in " ".join(found.split())


def test_an_original_too_large_to_zip_is_not_measured(make_report):
    made = make_report(packing=Compared(None, FOUND.onnx, 120_000))
    assert packing.lines(made)[2] == ("model file, packed", "–", "120 kB", "–")


def test_where_packing_was_left_out_every_form_says_why(make_report):
    made = make_report(packing="there is no model.onnx")
    assert (made["packing"], made["not_packed"]) == (None, "there is no model.onnx")
    assert packing.lines(made) == []
    text, markdown = (report.render(made, format) for format in ("text", "markdown"))
    for found in (text, markdown, render_html([of(made, Path("leaves"))])):
        assert "either zipped nor packed to compare sizes: there is no model.onnx" in " ".join(found.split())


@pytest.mark.parametrize("older", [{}, {"packing": None}])
def test_a_run_that_did_not_pack_has_no_such_lines(older, make_report):
    made = {key: value for key, value in make_report().items() if key != "packing"} | older
    assert packing.lines(made) == []
    assert "zipped" not in report.render(made, "text")
    assert "zipped" not in report.render(made, "markdown")
