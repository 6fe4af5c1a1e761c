"""A ladder as data and on paper: ratios to the first row, what is slower than the row above, what is not."""

import dataclasses
import json

import pytest

from slimcv.errors import SlimcvError
from slimcv.report import figures
from slimcv.report.ladder import SLOWER, build, chart, render_ladder
from slimcv.results import Latency, Measurement, Paired, Record


def record(number, name, *, p50, pace, parameters, top1=90.0, notes=(), beyond=False):
    measurement = Measurement(
        parameters=parameters,
        buffers=100,
        macs=1_000_000,
        size_bytes=4 * parameters,
        latency_ms=Latency(p50, p50, p50, 100, 0.01),
        threads=2,
        peak_rss_bytes=10_000_000,
        top1=top1,
        train_seconds_per_epoch=pace,
    )
    training = {
        "images_per_second": 1000 / pace,
        "peak_bytes": 200_000_000,
        "teacher_seconds": 0.0,
        "read_steps": 4 if number == 0 else None,
        "epochs": 0 if number == 0 else 3,
    }
    title = name if number == 0 else f"+ {name}"
    details = {
        "title": title, "recipe": f"steps: [{name}]", "training": training, "notes": list(notes),
        "slower_beyond_spread": beyond,
    }  # fmt: skip
    return Record(number, -1, name, "measured", "", 1.0, measurement=measurement, details=details)


def skipped(number, name, note):
    training = {"images_per_second": None, "peak_bytes": None, "teacher_seconds": 0.0, "read_steps": None}
    details = {
        "title": f"+ {name}", "recipe": None, "training": {**training, "epochs": 0}, "notes": [note],
    }  # fmt: skip
    return Record(number, -1, name, "skipped", note, 1.0, details=details)


def ladder(*records, name="model.pt"):
    return build(
        records,
        model={"name": name, "source": name},
        data={"source": "pictures", "train": 100, "val": 20},
        epochs=3,
        seed=0,
        train_threads=2,
        environment={"cpu": "a CPU"},
        command=["slimcv", "ladder", name],
        seconds=9.5,
    )


@pytest.fixture
def table():
    return ladder(
        record(0, "original", p50=52.0, pace=171.0, parameters=7_474_182),
        record(1, "pooling", p50=51.0, pace=164.0, parameters=5_871_046, top1=65.0),
        record(2, "separable", p50=36.0, pace=250.0, parameters=676_705, top1=74.0),
        record(3, "compile", p50=36.1, pace=89.0, parameters=676_705, notes=["a | note"]),
    )


def test_every_column_has_its_ratio_to_the_first_row(table):
    ratios = table["rows"][2]["ratios"]
    assert ratios["parameters"] == pytest.approx(7_474_182 / 676_705)
    assert ratios["parameters_with_buffers"] == pytest.approx(7_474_282 / 676_805)
    assert ratios["latency_p50"] == pytest.approx(52 / 36)
    assert ratios["train_seconds_per_epoch"] == pytest.approx(171 / 250)
    assert ratios["train_images_per_second"] == pytest.approx(171 / 250)
    assert ratios["top1"] == pytest.approx(-16)


def test_a_row_slower_than_the_one_above_is_marked(table):
    assert table["rows"][1]["slower"] == []
    assert table["rows"][2]["slower"] == ["training 1.52×"]
    assert table["rows"][3]["slower"] == ["latency 1.00×, inside the spread"]
    text = render_ladder(table, "text")
    lines = text.splitlines()
    at = next(at for at, line in enumerate(lines) if line.startswith(" + separable") and " s " in line)
    assert lines[at + 1].split()[0].endswith(SLOWER)
    assert "slower than the row above: training 1.52×" in " ".join(text.split())


def test_parameters_are_printed_exactly(table):
    for kind in ("text", "markdown"):
        drawn = render_ladder(table, kind)
        assert all(count in drawn for count in ("7,474,182", "7,474,282", "676,805"))


def test_the_text_keeps_to_its_width(table):
    assert max(len(line) for line in render_ladder(table, "text").splitlines()) <= 80


def test_json_is_strict_and_complete(table):
    read = json.loads(render_ladder(table, "json"))
    assert [row["name"] for row in read["rows"]] == ["original", "pooling", "separable", "compile"]
    assert read["rows"][0]["training"]["read_steps"] == 4


def test_a_row_that_does_not_apply_says_so_and_has_no_figures():
    drawn = ladder(
        record(0, "original", p50=2.0, pace=10.0, parameters=1000),
        skipped(1, "pooling", "left out: the head is pooled already"),
        record(2, "separable", p50=3.0, pace=8.0, parameters=500, beyond=True),
    )
    assert drawn["rows"][1]["measurement"] is None
    assert drawn["rows"][2]["slower"] == ["latency 1.50×"]
    for kind in ("text", "markdown"):
        assert "left out: the head is pooled already" in " ".join(render_ladder(drawn, kind).split())
    assert chart(drawn).count("<circle") == 2


def test_memory_too_small_to_show_is_not_measured():
    rows = [record(number, name, p50=2.0, pace=9.0, parameters=900) for number, name in enumerate("ab")]
    rows[0] = dataclasses.replace(
        rows[0], measurement=dataclasses.replace(rows[0].measurement, peak_rss_bytes=0)
    )
    drawn = render_ladder(ladder(*rows), "markdown").split("## Data")[0]
    assert "0 B" not in drawn
    assert " 0×" not in drawn


def test_foreign_names_are_escaped_in_markdown_and_in_the_picture():
    drawn = ladder(record(0, "original", p50=2.0, pace=10.0, parameters=1000), name="<b>|a.pt")
    assert "<b>" not in render_ladder(drawn, "markdown").split("## How to repeat")[0]
    assert "<b>" not in chart(drawn)


def test_an_unknown_format_is_refused(table):
    with pytest.raises(SlimcvError, match="unknown format"):
        render_ladder(table, "html")


def test_how_sure_a_rows_accuracy_is_stands_in_its_notes():
    pair = Paired.counted(9, 4, 200)
    sure = record(1, "pooling", p50=1.0, pace=9.0, parameters=900, top1=87.5)
    sure = dataclasses.replace(sure, measurement=dataclasses.replace(sure.measurement, paired=pair))
    found = ladder(record(0, "original", p50=2.0, pace=10.0, parameters=1000), sure)
    assert found["rows"][1]["measurement"]["paired"]["lost"] == 9
    between = figures.points_between(pair.low, pair.high)
    words = f"top-1 {between} against the first row ({figures.p_value(pair.p_value)})"
    for kind in ("text", "markdown"):
        drawn = " ".join(render_ladder(found, kind).split())
        assert words in drawn
        assert "only one of the two rows gets right" in drawn
