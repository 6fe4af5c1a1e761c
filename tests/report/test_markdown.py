"""The report in Markdown, with names nobody should trust."""

import dataclasses
import re

from slimcv import report
from slimcv.quoting import cell, fenced
from slimcv.report import figures
from slimcv.report.card import render_card
from slimcv.results import Latency, Measurement, Paired, Record

UNESCAPED_PIPE = re.compile(r"(?<!\\)\|")


def test_every_table_row_has_the_columns_of_its_heading(make_report):
    records = [Record(1, 0, "a|b", "rejected", "pipes | and `ticks`\nand a second line", 1.0)]
    columns = None
    for line in report.render(make_report(records=records), "markdown").splitlines():
        if not line.startswith("|"):
            columns = None
            continue
        count = len(UNESCAPED_PIPE.findall(line))
        assert columns in (None, count), line
        columns = count


def test_names_from_outside_stay_text(make_report):
    names = ("a|b", "<script>alert(1)</script>", "`x`", "*bold*", "[link](http://x)", "new\n# heading", "_i_")
    text = report.render(make_report(model={"source": "m.pt", "classes": names}), "markdown")
    line = next(line for line in text.splitlines() if line.startswith("- classes"))
    assert r"a\|b" in line
    assert r"\<script\>" in line
    assert r"\`x\`" in line
    assert r"\*bold\*" in line
    assert r"\[link\]" in line
    assert r"\_i\_" in line
    assert "\n# heading" not in text


def test_step_names_keep_their_underscores():
    assert cell("global_average_pool") == "global_average_pool"


def test_rejected_steps_stand_with_reason_and_figures(make_report):
    text = report.render(make_report(), "markdown")
    row = next(line for line in text.splitlines() if "depthwise_separable" in line)
    assert "rejected" in row
    assert "no gain: 64.8 ms against 65.0 ms" in row
    assert "91.5 %" in row
    assert "78.1 ms" in row


def test_how_to_repeat_quotes_the_typed_command_for_a_shell(make_report):
    command = ["slimcv", "optimize", "my model.pt", "--recipe", "cpu_fast"]
    text = report.render(make_report(command=command), "markdown")
    assert "slimcv optimize 'my model.pt' --recipe cpu_fast" in text


def test_how_to_repeat_is_put_together_where_no_command_was_recorded(make_report):
    text = report.render(make_report(), "markdown")
    assert (
        "slimcv optimize model.pt --recipe cpu_fast --data leaves/ --input 3x224x224 --max-drop 1.0" in text
    )
    assert "```yaml\nname: cpu_fast\n```" in text


def test_a_fence_is_longer_than_the_fences_inside():
    assert fenced("a\n````\nb").startswith("`````\n")


def test_without_data_the_accuracy_is_said_to_be_missing(make_report):
    assert "No data was given: accuracy not measured." in report.render(make_report(data=None), "markdown")


def test_a_gate_judged_on_synthetic_pictures_says_so_everywhere(make_report):
    judged = {"top1": None, "top5": None, "agreement": 98.4375, "synthetic_pictures": 64, "paired": None}
    found = make_report(data=None)
    found["ratios"]["top1"] = None
    for key in ("original", "optimized"):
        found[key] = found[key] | judged
    for kind in ("markdown", "text"):
        text = " ".join(report.render(found, kind).split())
        assert "accuracy not measured, same answer as the original on 98.4 % of 64 synthetic pictures" in text
        assert "noise with the spectrum of photographs" in text
        assert "not how accurate a sound one is" in text
    assert "64 synthetic pictures" in render_card(found)


def test_long_lists_are_cut_and_say_so(make_report):
    names = tuple(f"class{number}" for number in range(1000))
    text = report.render(make_report(model={"classes": names}), "markdown")
    assert "… and 980 more" in text


def test_the_accuracy_of_a_step_comes_with_its_interval(make_report):
    pair = Paired.counted(9, 4, 200)
    measured = dataclasses.replace(make_measurement(), top1=87.5, paired=pair)
    records = [Record(1, 0, "pooling", "accepted", "", 1.0, measurement=measured)]
    text = report.render(make_report(records=records), "markdown")
    row = next(line for line in text.splitlines() if "| pooling |" in line)
    assert f"| 87.5 % ({figures.points_between(pair.low, pair.high)}) |" in row
    assert "in brackets the 95 % interval of its difference from the original's" in text


def make_measurement():
    return Measurement(1000, 10, 5000, 4000, Latency(10.0, 11.0, None, 50, 0.01))
