"""The report on a terminal."""

import dataclasses
import io

import pytest

from slimcv import report
from slimcv.results import Latency, Measurement, Record

HOSTILE = "evil\x1b[31m\nname\u202e"


def line_of(text, label):
    return next(line for line in text.splitlines() if line.strip().startswith(label))


def test_the_table_sets_original_and_optimised_side_by_side(make_report):
    text = report.render(make_report(), "text", colour=False)
    assert line_of(text, "parameters").split() == ["parameters", "52.6", "M", "125", "k", "−99.8", "%"]
    assert line_of(text, "file size").endswith("−99.8 %")
    assert line_of(text, "latency p50").split()[2:] == ["78.1", "ms", "1.25", "ms", "62.5×", "faster"]
    assert line_of(text, "top-1").endswith("+1.5 points")
    assert line_of(text, "training").endswith("26.6× faster")
    assert "> 99.9 %" in line_of(text, "INT8 share")


def test_the_unmodified_network_has_rows_of_its_own(make_report):
    text = report.render(make_report(), "text", colour=False)
    assert line_of(text, "original, default allocator").endswith("106 ms   1.36× slower")
    best = line_of(text, "best unmodified runtime (openvino fp32)")
    assert "25.0 ms" in best
    assert best.endswith("3.13× faster")
    assert "20.0× faster than the unmodified network in openvino fp32" in " ".join(text.split())


def test_what_was_not_measured_is_a_dash(make_report):
    bare = Measurement(parameters=10, buffers=0, macs=100)
    document = make_report(
        original=bare, optimized=bare, original_default_allocator=None, best_unmodified=None
    )
    text = report.render(document, "text")
    assert line_of(text, "latency p50").split() == ["latency", "p50", "–", "–", "–"]
    assert line_of(text, "top-1").count("not measured") == 2
    assert line_of(text, "peak memory").split() == ["peak", "memory", "–", "–", "–"]
    assert line_of(text, "original, default allocator").endswith("–")
    assert " 0 " not in line_of(text, "throughput")


def test_memory_too_small_to_see_is_not_called_zero(make_report, optimized):
    text = report.render(make_report(optimized=dataclasses.replace(optimized, peak_rss_bytes=0)), "text")
    assert line_of(text, "peak memory").split() == ["peak", "memory", "359", "MB", "–", "–"]


def test_a_difference_inside_the_spread_is_not_sold_as_a_gain(make_report, original):
    same = dataclasses.replace(original, latency_ms=Latency(p50=77.6, p90=79.0, p99=None, n=50, spread=0.01))
    text = report.render(make_report(optimized=same), "text")
    assert line_of(text, "latency p50").endswith("within the spread")


def test_a_missed_gate_is_said_in_capitals(make_report, optimized):
    document = make_report(
        optimized=dataclasses.replace(optimized, top1=90.0),
        gate={"max_drop": 1.0, "min_speedup": 100.0, "met": False},
    )
    text = " ".join(report.render(document, "text").split())
    assert "gate NOT met: top-1 may drop by at most 1 point (measured: −5.3 points)" in text
    assert "at least 100× faster (measured: 62.5× faster)" in text


def test_a_step_is_one_row_with_its_reason_beneath(original):
    record = Record(
        number=7,
        entry=2,
        step="depthwise_separable",
        outcome="rejected",
        reason="no gain: " + "the medians lie inside the measured spread, " * 6,
        seconds=185.0,
        measurement=dataclasses.replace(
            original, latency_ms=Latency(p50=39.1, p90=40.0, p99=None, n=50, spread=0.01)
        ),
        before=original,
    )
    row, *beneath = report.step_line(record).splitlines()
    columns = ["7", "depthwise_separable", "rejected", "95.3 %", "39.1 ms", "2.00×", "2.64 G", "3 min 05 s"]
    assert row.split() == " ".join(columns).split()
    assert len(row) == len(report.step_header())
    assert beneath
    assert all(line.startswith("    ") and len(line) <= 80 for line in beneath)


def test_a_step_without_labels_shows_agreement_instead_of_accuracy(original):
    record = Record(
        number=1,
        entry=0,
        step="fuse_conv_bn",
        outcome="accepted",
        reason="1.1× faster",
        seconds=1.0,
        measurement=dataclasses.replace(original, top1=None, agreement=99.2),
    )
    assert "accuracy not measured, same answer as the original on 99.2 %" in report.step_line(record)


def test_no_line_is_wider_than_a_terminal(make_report):
    text = report.render(make_report(model={"name": "x" * 80}), "text")
    assert max(len(line) for line in text.splitlines()) <= 80


def test_steps_shown_as_they_happened_can_be_left_out(make_report):
    assert "depthwise_separable" in report.render(make_report(), "text")
    assert "depthwise_separable" not in report.render(make_report(), "text", steps=False)


def test_colour_is_drawn_only_when_asked_for(make_report, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert "\x1b" not in report.render(make_report(), "text", colour=False)
    assert "\x1b[32m" in report.render(make_report(), "text", colour=True)


@pytest.mark.parametrize(
    ("tty", "no_color", "expected"), [(True, "", True), (True, "1", False), (False, "", False)]
)
def test_colour_is_for_terminals_without_no_color(monkeypatch, tty, no_color, expected):
    class Stream(io.StringIO):
        def isatty(self):
            return tty

    monkeypatch.setenv("NO_COLOR", no_color)
    monkeypatch.setenv("TERM", "xterm")
    assert report.wants_colour(Stream()) is expected


def test_names_from_outside_cannot_move_the_cursor(make_report):
    record = Record(number=1, entry=0, step=HOSTILE, outcome="skipped", reason=HOSTILE, seconds=0.1)
    text = report.render(make_report(model={"name": HOSTILE}, records=[record]), "text", colour=False)
    assert "\x1b" not in text
    assert "\u202e" not in text
    assert "[bold]" in report.render(make_report(model={"name": "[bold]x"}), "text")
