"""The model card: front matter that parses, foreign names that stay text."""

import dataclasses

import yaml

from slimcv import report
from slimcv.report.card import render_card
from slimcv.results import Latency, Measurement, Record

MEASURED = Measurement(
    parameters=10, buffers=0, macs=100, latency_ms=Latency(1.0, 1.1, None, 20, 0.01), top1=90.0, size_bytes=9
)


def document(name="net.pt", source="leaves/", records=()):
    return report.build(
        model={"source": name},
        recipe={"name": "cpu_fast", "text": ""},
        environment={"cpu": "a CPU", "versions": {}},
        gate={"max_drop": 1.0, "met": True},
        original=MEASURED,
        optimized=dataclasses.replace(MEASURED, runtime="openvino", precision="int8", top1=89.5),
        records=records,
        artifacts=[],
        seconds=1.0,
        data={"source": source, "train": 3},
    )


def front_matter(card):
    return yaml.safe_load(card.split("---\n")[1])


def test_the_front_matter_is_that_of_hugging_face():
    found = front_matter(render_card(document(), license="apache-2.0"))
    assert found["license"] == "apache-2.0"
    assert found["pipeline_tag"] == "image-classification"
    assert {"openvino", "int8"} <= set(found["tags"])
    (result,) = found["model-index"][0]["results"]
    assert result["dataset"]["name"] == "leaves"
    assert result["metrics"] == [{"type": "accuracy", "value": 0.895}]


def test_without_a_licence_none_is_claimed():
    card = render_card(document())
    assert "license" not in front_matter(card)
    assert "not stated" in card


def test_names_are_data():
    card = render_card(document(name="<script>alert(1)</script>\n---\nx: y", source="a: b\n---"))
    assert "<script>" not in card.split("---\n", 2)[2].replace("\\<", "")
    assert front_matter(card)["model-index"][0]["name"].startswith("<script>")


def test_every_way_that_was_timed_stands_in_it_with_what_became_of_it():
    timed = {"name": "openvino:nncf", "precision": "int8", "p50_ms": 1.5, "outcome": "served"}
    failed = {"name": "aotinductor", "precision": None, "p50_ms": None, "outcome": "no compiler"}
    details = {"bake_off": [timed, failed]}
    shipped = Record(1, -1, "ship", "accepted", "", 1.0, MEASURED, MEASURED, details=details)
    card = render_card(document(records=[shipped]))
    assert "## Every way to run it" in card
    (row,) = [line for line in card.splitlines() if line.startswith("| openvino:nncf |")]
    assert [cell.strip() for cell in row.split("|")[2:5]] == ["int8", "1.5 ms", "served"]
    assert "no compiler" in card
    assert "## Every way to run it" not in render_card(document())


def test_the_tables_and_the_commands_are_there():
    card = render_card(document())
    for words in ("slimcv predict", "slimcv verify", "slimcv.load", "| top-1 |", "## Measured on"):
        assert words in card
