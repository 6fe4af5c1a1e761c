"""`either`: two ways to a slimmer network, timed untrained, and what goes on is what was faster here."""

import json
from dataclasses import replace

import pytest
import torch
from torch import nn

from slimcv import crossroads, data, session
from slimcv.models import capture
from slimcv.recipe import load
from slimcv.run import JOURNAL, Run
from slimcv.step import Context, InputSpec, Variant
from slimcv.steps.depthwise_separable import DepthwiseSeparable
from slimcv.steps.prune_channels import PruneChannels
from slimcv.steps.quantize_int8 import QuantizeInt8
from slimcv.workbench import Workbench

INPUT = InputSpec(3, 32, 32)

ENDS = """
  - fuse_conv_bn
  - quantize_int8: {calibration_images: 8}
  - export_onnx
"""

NARROW_OR_DEPTHWISE = """
gate: {max_drop: 100}
steps:
  - either:
      - [depthwise_separable]
      - [prune_channels: {macs: SHARE, min_kept: 0.1}]
"""


@pytest.fixture(scope="module")
def pictures(tmp_path_factory, write_noise):
    folder = tmp_path_factory.mktemp("data")
    write_noise(folder, size=32, each=20)
    return data.load(str(folder / "pictures"), cache=folder / "cache")


@pytest.fixture
def original(pictures):
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 64, 3, padding=1), nn.BatchNorm2d(64), nn.ReLU(),
        nn.Conv2d(64, 64, 3, padding=1), nn.ReLU(), nn.Conv2d(64, 64, 3, padding=1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 2),
    )  # fmt: skip
    return Variant(capture.capture(network.eval(), INPUT), INPUT, pictures.classes)


@pytest.fixture
def opened(tmp_path, original, pictures):
    """A function: the workbench of a recipe in this test's one run directory."""

    def made(text, *, with_data=True):
        (tmp_path / "mine.yaml").write_text(text)
        plan = load(str(tmp_path / "mine.yaml"))
        run = Run.open(tmp_path / "out", identity={"recipe": plan.plan()})
        given = pictures if with_data else None
        context = Context(original, given, run.workdir, threads=1, train_threads=1)
        bench = Workbench(plan, context, run)
        bench.original()
        return bench

    return made


def latencies(record):
    """Milliseconds of each road's form, as the record tells them."""
    forms = record.details["either"]["forms"]
    return [form["measurement"] and form["measurement"]["latency_ms"]["p50"] for form in forms]


def told(records):
    """As the journal has them."""
    return [json.loads(json.dumps(record.as_json())) for record in records]


@pytest.mark.parametrize(("share", "winner"), [(0.05, "prune_channels"), (0.9, "depthwise_separable")])
def test_narrow_wins_where_it_is_narrow_enough_and_depthwise_where_it_is_not(opened, share, winner):
    bench = opened(NARROW_OR_DEPTHWISE.replace("SHARE", str(share)) + ENDS)
    taken, (record,) = bench.choose(0, bench.teacher)
    bench.run.close()
    names = [entry.name for entry in bench.recipe.entries[:2]]
    assert names[taken] == winner
    assert (record.step, record.outcome) == (names[1 - taken], "rejected")
    times = latencies(record)
    assert times[taken] < times[1 - taken]
    assert record.measurement.latency_ms.p50 == times[1 - taken]
    assert record.measurement.precision == "int8"
    assert f"the road taken is {winner}" in record.reason
    assert "untrained" in record.reason
    assert [name in record.reason for name in names] == [True, True]


SIZES = """
steps:
  - either:
      - [reduce_resolution: {size: FIRST}]
      - [reduce_resolution: {size: SECOND}]
  - export_onnx
"""


@pytest.mark.parametrize(("first", "second"), [(8, 24), (24, 8)])
def test_the_faster_road_is_taken_wherever_it_stands_and_a_resumed_run_keeps_to_it(
    opened, tmp_path, first, second
):
    text = SIZES.replace("FIRST", str(first)).replace("SECOND", str(second))
    bench = opened(text)
    taken, records = bench.choose(0, bench.teacher)
    bench.run.close()
    assert taken == (0 if first == 8 else 1)
    again = opened(text)
    resumed, replayed = again.choose(0, again.teacher)
    again.run.close()
    assert resumed == taken
    assert told(replayed) == told(records)
    lines = (tmp_path / "out" / JOURNAL).read_text().splitlines()
    assert len(lines) == 3, "header, original, the road that was not taken"


def test_a_run_that_died_between_its_records_goes_on_with_the_same_decision(opened, tmp_path):
    text = SIZES.replace("FIRST", "24").replace("SECOND", "8") + "  # end\n"
    text = text.replace("  - export", "      - [reduce_resolution: {size: 16}]\n  - export")
    bench = opened(text)
    taken, records = bench.choose(0, bench.teacher)
    bench.run.close()
    assert (taken, len(records)) == (1, 2)
    journal = tmp_path / "out" / JOURNAL
    journal.write_text("".join(journal.read_text().splitlines(keepends=True)[:-1]))
    again = opened(text)
    resumed, found = again.choose(0, again.teacher)
    again.run.close()
    assert resumed == 1
    assert [record.entry for record in found] == [record.entry for record in records] == [0, 2]
    assert told(found)[1]["details"] == told(records)[0]["details"]
    assert len(journal.read_text().splitlines()) == 4


def test_a_road_that_has_nothing_to_do_leaves_the_other_one(opened):
    bench = opened(
        "steps:\n- either:\n  - [reduce_resolution: {size: 64}]\n  - [depthwise_separable]\n- export_onnx\n"
    )
    taken, (record,) = bench.choose(0, bench.teacher)
    bench.run.close()
    assert taken == 1
    assert record.outcome == "skipped"
    assert "64x64 is not smaller" in record.reason


def test_without_pictures_the_first_road_is_taken_unmeasured(opened):
    bench = opened(NARROW_OR_DEPTHWISE.replace("SHARE", "0.05") + ENDS, with_data=False)
    taken, (record,) = bench.choose(0, bench.teacher)
    bench.run.close()
    assert (taken, record.outcome, record.measurement) == (0, "skipped", None)
    assert "nothing to choose by" in record.reason


@pytest.mark.slow
def test_a_session_goes_on_along_one_road_alone(opened):
    text = SIZES.replace("FIRST", "24").replace("SECOND", "8")
    text = "gate: {max_drop: 100}\n" + text.replace(
        "  - export_onnx", "  - finetune: {epochs: 1}\n    gate: {max_drop: 100}\n  - export_onnx"
    )
    bench = opened(text)
    bench.run.close()
    with Run.open(bench.run.folder, identity={"recipe": bench.recipe.plan()}) as run:
        context = replace(bench.context, workdir=run.workdir)
        records = list(session.optimize(bench.recipe, context, run, quick=True))
    told = [(record.step, record.entry, record.outcome) for record in records[:4]]
    assert told == [
        ("original", -1, "measured"),
        ("reduce_resolution", 0, "rejected"),
        ("reduce_resolution", 1, "accepted"),
        ("finetune", 2, "accepted"),
    ]
    assert records[-1].details["input"]["height"] == 8


def test_drafts_leave_out_what_latency_does_not_need():
    assert DepthwiseSeparable(rank=2).draft() == DepthwiseSeparable(rank=2, correct=False)
    assert PruneChannels(steps=3, macs=0.3).draft() == PruneChannels(steps=1, macs=0.3, correct=False)
    draft = QuantizeInt8(preserve=("clusters",)).draft()
    assert (draft.preserve, draft.rungs) == (("clusters",), ())
    assert crossroads.LIMIT_SECONDS < 60
