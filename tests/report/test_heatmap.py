"""The heat map of layers and treatments: well-formed, readable without colours, harmless."""

from xml.etree import ElementTree

import pytest

from slimcv.report.heatmap import contrast, heat_map

GROUPS = "it has groups"
SVG = "{http://www.w3.org/2000/svg}"


def cell(decibels=None, error=None, reason=None):
    return {
        "sqnr_db": decibels, "error": error, "top1_drop": 3.1 if error else None,
        "bytes": None if reason == GROUPS else 10,
        "bytes_saved": 1200, "ms": 0.5, "ms_saved": 0.25, "reason": reason, "ms_reason": None,
    }  # fmt: skip


def drawn(*cells, name="net.pt", layer="stem"):
    treatments = [{"key": str(at), "title": f"treatment {at}", "says": ""} for at in range(len(cells))]
    row = {"name": layer, "treatments": {str(at): one for at, one in enumerate(cells)}}
    return ElementTree.fromstring(
        heat_map({"model": {"name": name}, "treatments": treatments, "layers": [row]})
    )


def test_every_cell_shows_its_number_and_says_all_in_words():
    picture = drawn(cell(41.26, 0.0086), cell(None, 0.0), cell(reason=GROUPS))
    groups = picture.findall(f"{SVG}g")
    assert [group.find(f"{SVG}text").text for group in groups] == ["41.3", "∞", "–"]
    told = [group.find(f"{SVG}title").text for group in groups]
    assert told[0] == "stem, treatment 0: 41.3 dB, top-1 −3.1 points, 1,200 bytes saved, 0.25 ms saved"
    assert told[2] == "stem, treatment 2: it has groups"
    assert picture.get("role") == "img"
    assert picture.find(f"{SVG}title").text == "net.pt: which layer bears what"
    assert "darker is more sensitive" in picture.find(f"{SVG}desc").text


def test_a_cell_whose_outputs_are_no_numbers_is_the_darkest_and_says_so():
    failed, worst = drawn(cell(reason="no numbers any more"), cell(0.0, 1.0)).findall(f"{SVG}g")
    assert failed.find(f"{SVG}text").text == "NaN"
    assert failed.find(f"{SVG}rect").get("fill") == worst.find(f"{SVG}rect").get("fill")
    told = failed.find(f"{SVG}title").text
    assert told == "stem, treatment 0: no numbers any more, 1,200 bytes saved, 0.25 ms saved"


def test_the_more_sensitive_is_darker_and_letters_stand_out_everywhere():
    picture = drawn(*(cell(float(value), 0.1) for value in range(-10, 70, 2)))
    lights = []
    for group in picture.findall(f"{SVG}g"):
        fill, ink = group.find(f"{SVG}rect").get("fill"), group.find(f"{SVG}text").get("fill")
        colours = [tuple(bytes.fromhex(colour[1:])) for colour in (fill, ink)]
        assert contrast(*colours) >= 4.5
        lights.append(sum(colours[0]))
    assert lights == sorted(lights)
    assert lights[0] < lights[-1]


@pytest.mark.parametrize("name", ["<script>&\x1b", "a" * 90])
def test_a_name_from_elsewhere_cannot_break_the_picture(name):
    picture = drawn(cell(20.0, 0.1), name=name, layer=name)
    assert not list(picture.iter("script"))
    assert all(len(text.text) < 60 for text in picture.iter(f"{SVG}text") if text.text[0] in "…<")
