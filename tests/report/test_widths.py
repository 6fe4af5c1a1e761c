"""Whatever the names and figures of a result are, its text fits a terminal and cuts no figure."""

import json

import pytest

from slimcv import report
from slimcv.report.bench import render_bench
from slimcv.report.difference import render_difference
from slimcv.report.ladder import render_ladder
from slimcv.report.profile_training import render_training
from slimcv.report.terminal import WIDTH

LONG = "backbone.stages.2.blocks.13.depthwise_separable.convolution"


def fits(text):
    assert max(map(len, text.splitlines())) <= WIDTH
    assert "\x1b" not in text
    return text


@pytest.fixture
def document(results, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    return lambda kind: json.loads(results(kind).read_text("utf-8"))


def test_a_comparison_of_long_names_with_every_setting(document):
    found = document("bench")
    first = {**found["rows"][0], "name": f"runs/one/{LONG}-slim", "batch": 1024, "p50_ms": 12_345.6}
    first |= {"p90_ms": 23_456.7, "ratio": {"value": 123.4, "low": 100.1, "high": 150.9}, "threads": 128}
    found["rows"] = [
        first,
        *({**row, "name": f"{row['name']} in eager_channels_last"} for row in found["rows"]),
    ]
    text = fits(render_bench(found, "text"))
    for figure in ("12,300 ms", "23,500 ms", "123× (100–151)", "1024", "128", "eager_channels_last"):
        assert figure in text
    assert "cannot be loaded" in text
    assert "runs/" in text
    headings = next(line.split() for line in text.splitlines() if "p50" in line)
    assert headings == ["target", "threads", "batch", "p50", "images/s", "against", "the", "first"]


def test_a_comparison_says_spread_p99_and_what_the_accuracy_is_worth(document):
    found = document("bench")
    text = fits(render_bench(found, "text"))
    for figure in ("12.0 ms", "1.0 %", "−1.0 points", "−4.9 to +2.7 points", "0.58", "same 200 pictures"):
        assert figure in " ".join(text.split()), figure
    for figure in ("12.0 ms", "1.0 %", "−4.9 to +2.7 points", "0.58", "| spread |"):
        assert figure in render_bench(found, "markdown"), figure
    for row in found["rows"]:
        row["p99_ms"] = row["paired"] = row["model_bytes"] = None
    assert "memory" in text
    quick = render_bench(found, "text")
    assert "memory" not in quick
    assert "p99" not in quick
    assert "McNemar" not in quick


def test_a_ratio_of_images_a_second_stands_for_that_of_latencies(document):
    found = document("bench")
    other = found["rows"][1]
    other |= {"throughput_ratio": {"value": 7.0, "low": 6.5, "high": 7.5}, "throughput_spread": 0.021}
    found["mode"] = "throughput"
    text = fits(render_bench(found, "text"))
    assert "7.0× (6.5–7.5)" in text
    assert "5.0× (4.8–5.2)" not in text
    assert "2.1 %" in text


def test_a_setting_that_all_rows_share_is_said_once(document):
    text = fits(render_bench(document("bench"), "text"))
    assert "threads 1, batch 1; latency mode" in text
    assert "threads" not in text.splitlines()[1]


def test_a_profile_of_a_runtime_that_merges_layers_with_long_names(document):
    found = document("profile")
    for layer in found["layers"]:
        layer |= {"name": LONG, "kind": "depthwise convolution", "ms": 1234.5, "roofline_share": 1.234}
        layer |= {"bound": "memory", "parameters": 123_000_000, "macs": 123_000_000_000}
    found["layers"][1]["merged_into"] = LONG
    found["by_block"] = [{**found["by_kind"][0], "kind": LONG}]
    text = fits(report.render_profile(found, "text"))
    row = next(line for line in text.splitlines() if line.startswith(" back"))
    assert row.split()[0].endswith("ution")
    for figure in ("depthwise ", "123 M", "123 G", "1,230", "50.0 %", "123 % memory"):
        assert figure in row
    assert text.count("1,230  50.0 %") == 1
    assert "not shown: 1 call that eager does inside others" in " ".join(text.split())


def test_two_profiles_with_long_names(document):
    cost = {"ms": 1234.5, "macs": 123_000_000_000, "parameters": 123_000_000, "kinds": ["convolution"]}
    less = {**cost, "ms": 999.0}
    totals = {"layers_ms": 1234.5, "macs": 123_000_000_000, "parameters": 123_000_000, "runtime": "openvino"}
    found = {
        "models": [{"name": f"{LONG}.pt", "input": "3x224x224"}, {"name": "b.pt", "input": "3x112x112"}],
        "totals": [totals, totals],
        "layers": [
            {"name": LONG, "before": cost, "after": less},
            {"name": "new one", "before": None, "after": less},
        ],
    }
    text = fits(render_difference(found, "text", colour=False))
    head, row = (next(line for line in text.splitlines() if word in line) for word in ("faster", "1.2×"))
    assert row.index("1.2×") + len("1.2×") == head.index("faster") + len("faster")
    assert text.count("123 G") == 5


def test_a_ladder_of_a_large_network(document):
    found = document("ladder")
    for row in found["rows"]:
        row["measurement"] |= {"parameters": 1_234_567_890, "buffers": 1_234, "size_bytes": 4.94e9}
    text = fits(render_ladder(found, "text"))
    assert text.count("1,234,569,124") == 3


def test_a_training(document):
    fits(render_training(document("training"), "text"))
