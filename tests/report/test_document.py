"""The report as data: its schema, its arithmetic, its nulls."""

import dataclasses
import json
import math
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from slimcv import report
from slimcv.errors import SlimcvError
from slimcv.report import sentences
from slimcv.report.document import as_plain, within_spread
from slimcv.report.schema import Report
from slimcv.results import Latency, Measurement, Paired, Record

M_KEYS = {
    "parameters",
    "buffers",
    "macs",
    "size_bytes",
    "latency_ms",
    "runtime",
    "threads",
    "batch",
    "throughput_ips",
    "peak_rss_bytes",
    "top1",
    "top5",
    "agreement",
    "train_seconds_per_epoch",
    "int8_mac_share",
}


def test_a_report_has_the_keys_of_its_schema(make_report):
    document = make_report()
    Report.model_validate_json(report.render(document, "json"))
    assert {"schema_version", "model", "recipe", "environment", "gate", "original", "optimized"} <= set(
        document
    )
    assert {"ratios", "steps", "artifacts", "original_default_allocator", "best_unmodified"} <= set(document)
    assert document["schema_version"] == 1
    assert {"max_drop", "min_speedup", "max_size", "met", "decided", "pictures"} <= set(document["gate"])
    assert set(document["original"]) >= M_KEYS
    assert set(document["original"]["latency_ms"]) >= {"p50", "p90", "p99", "n"}
    step_keys = {"number", "name", "outcome", "reason", "seconds", "measurement"}
    assert all(set(step) >= step_keys for step in document["steps"])
    artifact_keys = {
        "path",
        "runtime",
        "precision",
        "bytes",
        "sha256",
        "latency_ms",
        "max_abs_diff",
        "spread",
    }
    assert all(set(artifact) == artifact_keys for artifact in document["artifacts"])


def test_every_bound_of_the_gate_stands_in_the_report(make_report, optimized):
    gate = {"max_drop": 1.0, "max_step_drop": 0, "min_speedup": 2.0, "max_size": 500_000, "met": True}
    del gate["max_step_drop"]
    assert gate.items() <= make_report(gate={**gate, "max_step_drop": None})["gate"].items()
    assert "at most 500 kB on disk (measured: 330 kB)" in sentences.gate(make_report(gate=gate))


def test_the_schema_refuses_an_unknown_key_and_a_wrong_type(make_report):
    document = make_report()
    with pytest.raises(ValidationError):
        Report.model_validate({**document, "surprise": 1})
    with pytest.raises(ValidationError):
        Report.model_validate({**document, "seconds": "long"})


def test_what_was_not_measured_is_null_and_not_zero(make_report):
    bare = Measurement(parameters=10, buffers=0, macs=100)
    document = make_report(
        original=bare, optimized=bare, original_default_allocator=None, best_unmodified=None
    )
    assert document["original"]["top1"] is None
    assert document["original"]["latency_ms"] is None
    assert document["original"]["peak_rss_bytes"] is None
    assert document["best_unmodified"] is None
    assert document["ratios"]["latency_p50"] is None
    assert document["ratios"]["top1"] is None
    assert document["steps"][2]["measurement"] is None


def test_the_json_is_strict_even_with_a_value_that_is_not_a_number(make_report, original):
    document = make_report(
        original=dataclasses.replace(original, top1=math.nan),
        environment={"load": math.inf, "path": Path("a/b"), "counts": np.arange(2), "one": np.float32(0.5)},
    )
    read = json.loads(report.render(document, "json"), parse_constant=pytest.fail)
    assert read["original"]["top1"] is None
    assert read["environment"] == {"load": None, "path": "a/b", "counts": [0, 1], "one": 0.5}


def test_rejected_steps_keep_their_reason_and_their_figures(make_report):
    rejected = make_report()["steps"][1]
    assert rejected["outcome"] == "rejected"
    assert rejected["reason"] == "no gain: 64.8 ms against 65.0 ms"
    assert rejected["measurement"]["top1"] == 91.5


def test_ratios_above_one_are_improvements(original, optimized):
    found = report.ratios(original, optimized)
    assert found["latency_p50"] == pytest.approx(78.13 / 1.25)
    assert found["latency_p90"] == pytest.approx(79.9 / 1.31)
    assert found["latency_p99"] is None
    assert found["throughput"] == pytest.approx(1400 / 13.5)
    assert found["parameters"] == pytest.approx(52_567_724 / 125_000)
    assert found["size_bytes"] == pytest.approx(210_377_874 / 330_000)
    assert found["train_seconds_per_epoch"] == pytest.approx(245 / 9.2)
    assert found["top1"] == pytest.approx(1.5)
    assert found["top5"] == 0


def test_the_share_of_allocator_and_runtime_is_told_apart(make_report):
    found = make_report()["ratios"]
    assert found["allocator_alone"] == pytest.approx(106.2 / 78.13)
    assert found["runtime_alone"] == pytest.approx(78.13 / 25)
    assert found["beyond_runtime"] == pytest.approx(25 / 1.25)
    assert found["runtime_alone"] * found["beyond_runtime"] == pytest.approx(found["latency_p50"])


def test_a_ratio_to_nothing_is_null(original):
    empty = dataclasses.replace(original, parameters=0, macs=0)
    assert report.ratios(original, empty)["parameters"] is None


def test_the_first_line_says_what_is_within_the_spread(make_report, original, optimized):
    same = dataclasses.replace(optimized, latency_ms=original.latency_ms)
    told = sentences.headline(make_report(optimized=same))
    assert told.startswith("speed unchanged within the spread, parameters −99.8 %, top-1")


def test_a_ratio_of_memory_too_small_to_show_is_null(original, optimized):
    none = dataclasses.replace(original, peak_rss_bytes=0)
    for pair in ((none, optimized), (optimized, none), (none, none)):
        assert report.ratios(*pair)["peak_rss_bytes"] is None


def test_medians_closer_than_their_spreads_are_not_told_apart():
    def latency(p50, spread):
        return Latency(p50=p50, p90=p50, p99=None, n=50, spread=spread)

    assert within_spread(latency(10.0, 0.02), latency(9.7, 0.02))
    assert within_spread(latency(9.7, 0.02), latency(10.0, 0.02))
    assert not within_spread(latency(10.0, 0.01), latency(9.5, 0.01))


def test_details_of_a_step_become_plain_data():
    record = Record(
        number=1,
        entry=0,
        step="s",
        outcome="accepted",
        reason="",
        seconds=1.0,
        details={"shape": (1, 2), "at": Path("x"), "names": {"b", "a"}},
    )
    assert report.step_entry(record)["details"] == {"shape": [1, 2], "at": "x", "names": ["a", "b"]}
    assert as_plain(np.bool_(True)) is True


def test_an_unknown_format_is_refused_with_the_nearest_one(make_report):
    with pytest.raises(SlimcvError) as caught:
        report.render(make_report(), "markdwn")
    assert "markdown" in caught.value.hint


def paired_report(make_report, optimized, **gate):
    """A report of a variant that lost one picture more of 200 than it gained."""
    told = dataclasses.replace(optimized, top1=94.83, paired=Paired.counted(3, 2, 200))
    gate = {"max_drop": 1.0, "met": True, "decided": False, "undecided": ("max_drop",), **gate}
    return make_report(optimized=told, gate={"pictures_needed": 10_660, **gate})


def test_the_gate_says_that_the_pictures_do_not_decide_it(make_report, optimized):
    words = sentences.gate(paired_report(make_report, optimized))
    assert words.startswith("gate met (not decidable with n = 200 pictures, about 11,000 are needed): ")
    assert "measured: −0.5 points, 95 % interval −3.4 to +2.3 points" in words
    assert "of 200 pictures 3 only the original gets right, 2 only the optimised, p = 0.69" in words
    strict = paired_report(make_report, optimized, met=False, confidence=0.95)
    assert sentences.gate(strict).startswith("gate NOT met (not decidable with n = 200")


def test_what_decides_the_gate_stands_in_the_report(make_report, optimized):
    document = paired_report(make_report, optimized)
    told = document["optimized"]["paired"]
    assert (told["pictures"], told["lost"], told["gained"]) == (200, 3, 2)
    assert told["low"] < told["difference"] == -0.5 < told["high"]
    assert document["gate"]["pictures"] == 200
    assert document["gate"]["pictures_needed"] == 10_660
    assert document["original"]["paired"] is None
    assert Measurement.from_json(document["optimized"]).paired == Paired.counted(3, 2, 200)


def test_intervals_of_latency_ratios_stand_beside_them(make_report):
    between = {"latency_p50": {"value": 62.5, "low": 61.8, "high": 63.2}}
    between["beyond_runtime"] = {"value": 20.0, "low": 0.9, "high": 1.2}
    document = make_report(intervals=between)
    assert document["ratios"]["latency_p50_low"] == 61.8
    assert document["ratios"]["latency_p50_high"] == 63.2
    assert document["ratios"]["runtime_alone_low"] is None
    for format in ("text", "markdown"):
        text = report.render(document, format)
        assert "62.5× faster (61.8–63.2)" in " ".join(text.split())
        assert "in brackets the 95 % interval" in " ".join(text.split())
        assert "as fast as the unmodified network" in text
    assert sentences.headline(document).startswith("62.5× faster, parameters")


def test_a_report_of_an_earlier_version_is_still_one(make_report):
    document = make_report()
    for key in ("confidence", "decided", "not_as_asked", "undecided", "pictures", "pictures_needed"):
        del document["gate"][key]
    for key in [key for key in document["ratios"] if key.endswith(("_low", "_high"))]:
        del document["ratios"][key]
    for side in ("original", "optimized"):
        del document[side]["paired"]
    Report.model_validate_json(json.dumps(document))
    assert "gate met" in report.render(document, "text")
