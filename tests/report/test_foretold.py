"""What was foretold, beside what was measured."""

import dataclasses
import json

import pytest

from slimcv import report
from slimcv.report import foretold
from slimcv.results import Latency, Record


@pytest.fixture
def told(make_run):
    return json.loads((make_run() / "report.json").read_text())


def test_an_error_is_how_far_the_prediction_is_from_what_was_measured(told):
    first, second = foretold.of(told)
    assert (first.step, first.foretold) == ("1. global_average_pool", 1.5)
    assert first.measured == pytest.approx(1.2)
    assert first.error == pytest.approx(0.25)
    assert second.error == pytest.approx(1 - 64.9 / 65.0)
    assert (first.weights, first.file) == ((4_000_000, 1_000_000), (210_377_874, 60_000_000))
    assert first.training == pytest.approx((60 / (60 - 20), 60 / 32))
    assert first.training_error == pytest.approx(0.2)
    assert (second.training, second.training_error) == (None, None)
    assert first.bytes_error == pytest.approx(1 - 0.25 * 210_377_874 / 60_000_000)


def test_a_step_without_a_prediction_says_why(told):
    (one,) = foretold.unforetold(told)
    assert (one.step, one.why) == ("3. reduce_resolution", "<script>alert(1)</script> is not timed")
    assert one.measured == pytest.approx(65.0 / 21.0)
    words = "not foretold: 3. reduce_resolution (<script>alert(1)</script> is not timed)"
    assert words in " ".join(report.render(told, "text").split())
    row = "| 3. reduce_resolution | – | 3.10× | – | – | +250.6 % | – | – | – | – | – | not foretold: "
    row += "\\<script\\>"
    assert row in report.render(told, "markdown")
    for step in told["steps"]:
        step["details"].pop("foretold", None)
    assert "## Foretold and measured" in report.render(told, "markdown")
    assert foretold.sentence(told) == ""


def test_text_and_markdown_say_how_far_off_the_predictions_were(told):
    sentence = "the gain of 2 steps was foretold from the times of layers: the median error is 13 %, "
    sentence += "that of the bytes left 53 %, that of a gradient in training 20 %"
    assert sentence in " ".join(report.render(told, "text").split())
    text = report.render(told, "markdown")
    assert "## Foretold and measured" in text
    row = "| 1. global_average_pool | 1.5× | 1.20× | 25 % | −75.0 % | −71.5 % | 12 % | 90.0 % "
    assert row + "| 1.5× | 1.9× | 20 % |" in text
    assert "not worth it for speed: \\<script\\>" in text
    assert sentence[0].upper() + sentence[1:] in text


def test_a_step_that_was_not_timed_has_no_error(make_report, original):
    details = {"foretold": {"speedup": 2.0, "weight_bytes": 1, "timed_share": 1.0}}
    records = [
        Record(1, 0, "quantize_int8", "skipped", "needs data", 0.0, details=details),
        Record(2, 0, "fuse_conv_bn", "accepted", "", 1.0, measurement=original, before=original),
    ]
    document = make_report(records=records)
    assert foretold.of(document) == []
    assert foretold.sentence(document) == ""
    assert "foretold" not in report.render(document, "text")
    assert "Foretold" not in report.render(document, "markdown")


def test_layers_foretold_to_save_more_than_a_gradient_takes_have_no_ratio(told):
    told["steps"][1]["details"]["gradients"] = {"before_ms": 20.0, "after_ms": 10.0}
    assert foretold.of(told)[0].training is None


def test_one_step_alone_has_no_median_and_an_unsteady_one_fewer_digits(make_report, original):
    slow, fast = (
        dataclasses.replace(original, latency_ms=Latency(p50=p50, p90=99.0, p99=None, n=50, spread=0.2))
        for p50 in (30.0, 12.34)
    )
    details = {"foretold": {"speedup": 2.0, "weight_bytes": 1, "timed_share": 1.0}}
    record = Record(1, 0, "quantize_int8", "accepted", "", 1.0, fast, slow, details=details)
    document = make_report(records=[record])
    assert foretold.sentence(document).endswith("one step was foretold from the times of layers: off by 18 %")
    assert foretold.rows(document)[0][2] == "2.4×"
