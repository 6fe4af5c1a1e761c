"""Pages as text: everything is there, everything is escaped, nothing is fetched."""

import csv
import dataclasses
import html
import io
import json
import re

import pytest

from slimcv import report
from slimcv.errors import SlimcvError
from slimcv.report.charts import scale
from slimcv.report.charts.plane import Point
from slimcv.report.html import accuracy, render_html, roofline, run
from slimcv.report.html.classes import blocks
from slimcv.report.html.several import titles
from slimcv.report.reading import read
from slimcv.report.showing import show
from slimcv.results import Latency, Record

HOSTILE = "<script>alert(1)</script>"
KINDS = ("ladder", "bench", "profile", "training", "difference")
LIMIT_BYTES = 3_000_000


def text_of(page):
    """What a reader sees of a page, roughly."""
    body = re.sub(r"<(style|script)>.*?</\1>", "", page, flags=re.DOTALL)
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", "", body))


def test_a_run_is_shown_with_everything_it_knows(make_run):
    page = render_html([read(make_run())])
    assert re.findall(r'<section id="([\w-]+)"', page) == [
        "before-after", "steps", "int8", "foretold", "accuracy", "classes", "layers", "roofline", "latency",
        "size", "training", "repeat",
    ]  # fmt: skip
    seen = text_of(page)
    for words in (
        "62.5× faster", "95 % interval 61.0 to 64.2×", "−99.8 %", "+1.5 points", "gate met".capitalize(),
        "nothing to fuse in", "slimcv optimize",
    ):  # fmt: skip
        assert words in seen, words


def test_nothing_is_fetched_and_no_name_becomes_markup(make_run, results):
    pages = [render_html([read(make_run())])]
    pages += [render_html([read(results(kind))]) for kind in KINDS]
    for page in pages:
        assert "<script>alert" not in page
        assert "<img src=x" not in page
        assert not re.search(r"""(?:src|href)=["'](?!data:|#)""", page)
        assert not re.search(r"@import|url\((?!#)", page)


@pytest.mark.parametrize("kind", KINDS)
def test_every_result_says_how_to_repeat_it_and_on_what_it_was_measured(results, kind):
    found = [read(results(kind))]
    page = render_html(found)
    assert re.findall(r'<section id="([\w-]+)"', page)[-1] == "repeat"
    seen = text_of(page)
    command = "slimcv ladder" if kind == "ladder" else "slimcv profile"
    for words in (f"{command} &#39;&lt;script&gt;", "Machine and versions", "a CPU"):
        assert words in seen, words
    markdown = show(found, "md")
    assert f"## How to repeat\n\n```sh\n{command} " in markdown
    assert "## Machine and versions\n\n- cpu: a CPU" in markdown


@pytest.mark.parametrize("kind", ["bench", "profile", "training", "difference"])
def test_a_result_of_an_older_version_is_shown_without_its_command(results, kind):
    path = results(kind)
    document = json.loads(path.read_text("utf-8"))
    del document["environment"], document["command"]
    path.write_text(json.dumps(document), "utf-8")
    assert '<section id="repeat"' not in render_html([read(path)])
    assert "## How to repeat" not in show([read(path)], "md")


def test_two_networks_layer_by_layer_are_a_page_that_says_what_was_profiled(results):
    page = render_html([read(results("difference"))])
    assert re.findall(r'<section id="([\w-]+)"', page) == ["layers", "totals", "profiled", "repeat"]
    seen = html.unescape(text_of(page))
    for words in (
        "2.4× faster a whole call, 6.5 ms → 2.7 ms",
        f"{HOSTILE} convolution 3.0 1.5 2.0× faster 100 k 100 k 1.00 k 1.00 k",
        f"{HOSTILE}: itself in eager PyTorch fp32.",
        "leaves-slim: its model.pt2 in OpenVINO int8; it serves openvino/model.xml (openvino int8), which "
        "does not keep the names of layers.",
    ):
        assert words in seen, words


def test_two_networks_layer_by_layer_are_a_spreadsheet_too(results):
    lines = list(csv.DictReader(io.StringIO(show([read(results("difference"))], "csv"))))
    assert [line["name"] for line in lines][:2] == [HOSTILE, "block.act"]
    assert (lines[0]["before_ms"], lines[1]["after_ms"]) == ("3.0", "")


def test_the_page_of_a_ladder_says_how_sure_accuracy_and_speed_are(results):
    seen = text_of(render_html([read(results("ladder"))]))
    assert "5.00× (4.75–5.25)" in seen
    assert "−1.5 points (−4.6 to +1.0 points), p = 0.22" in seen
    assert "95 % interval 4.75–5.25×" in seen


def test_advice_that_is_foretold_to_save_bytes_alone_is_a_prediction(results):
    path = results("profile")
    document = json.loads(path.read_text("utf-8"))
    assert "measured share, no prediction" in text_of(render_html([read(path)]))
    document["advice"][0] |= {"saved_ms": None, "saved_bytes": 8000}
    path.write_text(json.dumps(document), "utf-8")
    seen = text_of(render_html([read(path)]))
    assert "foretold saving" in seen
    assert "no prediction" not in seen.replace("hints without a prediction", "")


def test_a_row_that_was_left_out_has_its_reason_on_the_page_of_a_ladder(results):
    path = results("ladder")
    document = json.loads(path.read_text("utf-8"))
    document["rows"][1] |= {"measurement": None, "notes": ["left out: it is pooled already"]}
    path.write_text(json.dumps(document), "utf-8")
    seen = text_of(render_html([read(path)]))
    assert "pooling – – – – – – – – separable" in seen
    assert "pooling – – – – left out: it is pooled already separable" in seen


@pytest.mark.parametrize("asked", [1.0, None])
def test_how_sure_the_accuracy_of_a_run_is_stands_there_whatever_was_asked(make_run, asked):
    found = [read(make_run(gate={"max_drop": asked, "met": True if asked else None}))]
    for text in (text_of(render_html(found)), show(found, "md"), report.render(found[0].document, "text")):
        told = " ".join(text.split())
        assert "+1.5 points (+0.3 to +3.0 points)" in told
        assert "of 600 pictures 3 only the original gets right, 12 only the optimised, p = 0.021" in told
    assert "95 % interval +0.3 to +3.0 points, p = 0.021" in text_of(render_html(found))


def shown(make_report, original, optimized, p50, interval):
    """The large figures of a run from 78.13 ms, in any runtime, to `p50`, each with how sure it is."""
    latency = Latency(p50=p50, p90=1.1 * p50, p99=None, n=50, spread=0.02)
    bounds = dict(zip(("low", "high"), interval, strict=True))
    found = make_report(
        optimized=dataclasses.replace(optimized, latency_ms=latency),
        best_unmodified=original,
        intervals={"latency_p50": bounds, "beyond_runtime": bounds},
    )
    return [(tile.figure, tile.more) for tile in run.tiles(found)[:2]]


def test_the_interval_of_what_is_slower_is_turned_as_its_figure_is(make_report, original, optimized):
    (slower, sure), _ = shown(make_report, original, optimized, 78.13 * 1.32, (0.74, 0.78))
    assert (slower, sure) == ("1.32× slower", "95 % interval 1.28 to 1.35×")


def test_what_the_table_calls_within_the_spread_is_no_gain_in_large_letters(make_report, original, optimized):
    for figure, sure in shown(make_report, original, optimized, 78.13 / 1.02, (0.99, 1.05)):
        assert (figure, sure) == ("within the spread", "95 % interval 0.99 to 1.05×")


def test_a_run_of_an_older_version_has_fewer_sections(make_report, tmp_path):
    (tmp_path / "report.json").write_text(json.dumps(make_report()), "utf-8")
    page = render_html([read(tmp_path)])
    assert "layers" not in re.findall(r'<section id="([\w-]+)"', page)
    assert "spread of the samples" in text_of(page)


def test_each_bar_of_the_way_names_the_runtimes_it_compares(make_run, original):
    fast = dataclasses.replace(
        original, runtime="openvino", latency_ms=Latency(p50=5.0, p90=6.0, p99=None, n=50, spread=0.02)
    )
    records = [
        Record(1, 0, "fuse_conv_bn", "accepted", "", 2.0, original, original),
        Record(2, 1, "export_openvino", "accepted", "", 3.0, fast, original),
        Record(3, 2, "finetune", "skipped", "needs data", 0.2),
    ]
    seen = text_of(render_html([read(make_run(records=records))]))
    assert "1. fuse_conv_bnaccepted, in eager, took 2.0 s" in seen
    assert "2. export_openvinoaccepted, in eager → openvino, took 3.0 s" in seen
    assert "2. export_openvino accepted eager → openvino 5.0" in seen
    assert "3. finetuneskipped, took 0.20 s" in seen
    assert "In eager, on a logarithmic axis" not in seen


def test_what_was_foretold_stands_beside_what_was_measured(make_run):
    seen = text_of(render_html([read(make_run())]))
    assert "2. separable 1.0× 1.00× 0 % −75.0 % +250.6 % 93 % 90.0 % – – – not worth it for speed" in seen
    assert "2 steps was foretold from the times of layers: the median error is 13 %" in seen
    assert "1. global_average_pool 1.5× 1.20× 25 % −75.0 % −71.5 % 12 % 90.0 % 1.5× 1.9× 20 %" in seen
    assert "Not foretold: 3. reduce_resolution (" in seen


def test_a_run_shows_the_time_of_each_layer_before_and_after_and_this_machine_s_limits(make_run):
    seen = text_of(render_html([read(make_run())]))
    assert "Milliseconds layer by layer" in seen
    assert "block1.conv 1.0 ms 0.50 ms" in seen
    assert "(runtime&#39;s own) – 0.10 ms" in seen
    assert "block0.conv original 3×3 convolution 2.0 ms 33.3 % 20.0 5.00 CPU 50 %" in seen
    assert "fp32 117 GFLOP/s" in seen
    assert "bf16 no fast kernel here" in seen
    assert "memory 20.0 GB/s" in seen


def test_layers_that_could_not_be_timed_are_said_to_be_so(make_run, tmp_path):
    folder = make_run()
    document = json.loads((folder / "report.json").read_text())
    told = {"runtime": "openvino", "problem": f"OpenVINO does not take {HOSTILE}"}
    document["steps"][-1]["details"]["layer_times"] = told
    (folder / "report.json").write_text(json.dumps(document))
    page = render_html([read(folder)])
    assert "Layers were not timed: OpenVINO does not take &lt;script&gt;" in page
    assert "roofline" not in re.findall(r'<section id="([\w-]+)"', page)


def test_a_profile_has_a_roofline_and_says_what_each_step_would_give(results):
    page = render_html([read(results("profile"))])
    assert re.findall(r'<section id="([\w-]+)"', page) == [
        "advice", "foretold", "roofline", "kinds", "blocks", "layers", "totals", "repeat",
    ]  # fmt: skip
    seen = text_of(page)
    assert "batch 1, eager PyTorch fp32, 1 thread" in seen
    assert "depthwise_separable eager 3.0 3.0 2.0× faster 8.00 kB −66.7 % 10 s 2.0× faster" in seen
    assert "INT8 not worth it for speed: 71 % of the time is memory-bound depthwise convolution" in seen
    alone, together = (html.unescape(part) for part in re.findall(r"<pre.*?</pre>", page, re.DOTALL)[:2])
    assert "  - {depthwise_separable: {}, recover: {}}\n  - quantize_int8" in alone
    assert "- depthwise_separable" in together
    assert "- quantize_int8" not in together
    assert "Not foretold: low_rank: no rank is low enough" in seen


def test_the_roof_rises_with_the_memory_and_ends_level_at_the_peak():
    x, y = scale.logarithmic([1.0, 100.0]), scale.logarithmic([1.0, 100.0])
    roof = roofline._roof(100.0, 20.0, x, y)
    assert roof.points[1] == pytest.approx((5.0, 100.0))
    assert roof.points[2] == (x.high, 100.0)
    assert roof.points[0][1] == pytest.approx(20.0 * roof.points[0][0])
    low = roofline._roof(100.0, 0.01, x, y)
    assert all(y.low * 0.999 <= up for _, up in low.points[:2])


def test_a_page_of_many_classes_and_layers_stays_small(make_run):
    classes = tuple(f"class number {at}" for at in range(1000))
    page = render_html([read(make_run(classes=classes, pictures=50_000, layers=400))])
    assert len(page.encode()) < LIMIT_BYTES
    assert "Drawn are the 24 of 1000 classes" in text_of(page)


def test_runs_side_by_side_are_named_apart_and_told_where_they_differ(make_run, make_report):
    runs = [read(make_run("one")), read(make_run("two", environment={"cpu": "another CPU"}))]
    assert titles(runs) == ["one", "two"]
    seen = text_of(render_html(runs))
    assert "2 runs side by side" in seen
    assert "on other machines" in seen


def test_runs_side_by_side_have_their_gates_classes_bytes_and_commands(make_run):
    page = render_html(
        [read(make_run("one")), read(make_run("two", command=["slimcv", "optimize", "two.pt"]))]
    )
    assert re.findall(r'<section id="([\w-]+)"', page) == [
        "figures", "accuracy", "classes", "size", "latency", "steps", "repeat",
    ]  # fmt: skip
    seen = text_of(page)
    for words in (
        "two: gate met: top-1 may drop by at most 1 point (measured: +1.5 points",
        "class pictures one two",
        "rust 10 90.0 % (±0) 90.0 % (±0)",
        "everything else two",
        "Command of two slimcv optimize two.pt",
    ):
        assert words in seen, words


def test_runs_on_other_pictures_are_not_compared_class_by_class(make_run):
    page = render_html([read(make_run("one")), read(make_run("two", pictures=39))])
    assert '<section id="classes"' not in page


def test_a_gate_that_is_not_decided_is_told_side_by_side(make_run):
    open_gate = {
        "max_drop": 1.0, "min_speedup": 2.0, "met": True, "decided": False, "undecided": ["min_speedup"],
    }  # fmt: skip
    runs = [read(make_run("one", gate=open_gate)), read(make_run("two"))]
    words = "met, the speed-up's interval holds its bound"
    shown = text_of(render_html(runs))
    assert words in html.unescape(shown)
    texts = show(runs, "md").splitlines()
    first, second = (
        next(line for line in texts if line.startswith(f"| {name} |")) for name in ("one", "two")
    )
    assert first.endswith(f"| {words} |")
    assert second.endswith("| met |")


def test_only_runs_stand_side_by_side(make_run, results):
    with pytest.raises(SlimcvError, match=r"only runs of slimcv optimize can stand side by side"):
        render_html([read(make_run()), read(results("bench"))])


def test_the_front_holds_what_nothing_beats():
    points = [Point(x, y, "", "", "") for x, y in ((10, 0), (2, -1), (4, -2), (1, -5), (10, -3), (1, -6))]
    assert accuracy.front(points) == [(1, -5), (2, -1), (10, 0)]


def test_flips_and_confusions_are_counted():
    said = {
        "classes": ["cat", "dog"],
        "pictures": [f"{at}.png" for at in range(6)],
        "labels": [0, 0, 0, 1, 1, 1],
        "original": [0, 0, 1, 1, 1, 0],
        "optimized": [0, 1, 1, 1, 1, 1],
        "examples": [{"picture": 1, "thumbnail": "https://example.org/x.jpg"}, {"picture": 9}],
    }
    flips, chart, confusions = blocks(said)
    assert "1 were answered right by the original and are answered wrong now, 1 the other way" in flips.text
    assert [[cell.text for cell in row] for row in chart.table.rows] == [
        ["cat", "3", "66.7 %", "33.3 %", "−33.3", "−79.2 to +41.5 points"],
        ["dog", "3", "66.7 %", "100.0 %", "+33.3", "−41.5 to +79.2 points"],
    ]
    assert {row[-2].mark for row in chart.table.rows} == {""}, "one picture of three shows nothing"
    (many,) = blocks({**said, **{key: 20 * said[key] for key in ("labels", "original", "optimized")}})[1:2]
    assert [row[-2].mark for row in many.table.rows] == ["worse", "better"]
    assert [[cell.text for cell in row] for row in confusions.rows] == [["cat", "dog", "1", "2", "+1"]]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("not json", "not JSON"),
        ("[]", "not a report of slimcv"),
        ('{"a": 1}', "not a report of slimcv"),
        ('{"ratios": {}, "steps": [], "artifacts": []}', "Field required"),
    ],
)
def test_what_is_no_report_is_refused(tmp_path, content, message):
    (tmp_path / "report.json").write_text(content)
    with pytest.raises(SlimcvError, match=message):
        read(tmp_path)


def test_an_unfinished_run_is_refused(tmp_path):
    (tmp_path / "journal.jsonl").write_text("{}\n")
    with pytest.raises(SlimcvError, match="there is no report") as refused:
        read(tmp_path)
    assert "same command" in refused.value.hint


def test_predictions_that_do_not_fit_are_left_away(make_run):
    folder = make_run()
    said = json.loads((folder / "predictions.json").read_text())
    for changes in ({"labels": [0]}, {"original": [99] * 40}, {"classes": None}):
        (folder / "predictions.json").write_text(json.dumps({**said, **changes}))
        assert read(folder).predictions is None
