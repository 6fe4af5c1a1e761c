"""The table of layers: what is in it, what it agrees with, and that a killed analysis goes on."""

import copy
import json

import numpy as np
import pytest
import torch

from slimcv import sensitivity, surgery
from slimcv.errors import NotApplicable
from slimcv.models import capture
from slimcv.report.sensitivity import build, render_sensitivity
from slimcv.run import Run
from slimcv.sensitivity import analysis, treatments

CELL = {
    "sqnr_db", "error", "top1_drop", "bytes", "bytes_saved", "ms", "ms_saved", "reason", "ms_reason",
}  # fmt: skip
ROW = {"name", "kind", "weights", "macs", "bytes", "ms", "treatments"}
LAYERS = ["stem", "shared", "depthwise", "widen", "head"]


def run_in(folder):
    return Run.open(folder, identity={"test": 1})


def document(records):
    return build(
        records, model={"name": "net.pt", "input": "3x12x12"}, data={}, threads=1, seed=0, command=["slimcv"]
    )


def without_times(record):
    row = copy.deepcopy(record.details)
    for cell in row.get("treatments", {}).values():
        del cell["ms"], cell["ms_saved"]
    return {key: value for key, value in row.items() if key not in ("ms", "environment")}


@pytest.fixture
def records(context, tmp_path):
    with run_in(tmp_path / "whole") as run:
        return list(analysis.analyse(context, run, images=12))


def test_every_layer_has_a_row_and_every_treatment_a_cell(records):
    found = document(records)
    assert set(found) == {
        "schema_version", "model", "data", "top1", "threads", "seed", "treatments", "layers",
        "most_sensitive", "environment", "command", "seconds",
    }  # fmt: skip
    assert found["schema_version"] == 1
    assert [row["name"] for row in found["layers"]] == LAYERS
    keys = ["int8", "prune_50", "cluster_16", "rank_half", "depthwise_separable"]
    assert [one["key"] for one in found["treatments"]] == keys
    for row in found["layers"]:
        assert set(row) == ROW
        assert list(row["treatments"]) == keys
        assert all(set(cell) == CELL for cell in row["treatments"].values())
        assert row["treatments"]["int8"]["bytes_saved"] > 0
        assert row["treatments"]["int8"]["ms"] > 0
        assert row["treatments"]["prune_50"]["ms_saved"] == 0
        assert "by construction" in row["treatments"]["prune_50"]["ms_reason"]
    assert json.loads(render_sensitivity(found, "json")) == found
    widen, stem = found["layers"][3]["treatments"], found["layers"][0]["treatments"]
    assert widen["rank_half"]["bytes_saved"] > 0
    assert "pointwise" in widen["depthwise_separable"]["reason"]
    assert stem["depthwise_separable"]["bytes_saved"] > 0
    assert widen["depthwise_separable"]["error"] is None


def test_the_text_fits_the_terminal_and_names_every_layer(records):
    text = render_sensitivity(document(records), "text")
    assert max(map(len, text.splitlines())) <= 80
    assert all(text.count(name) >= 2 for name in LAYERS)
    assert "does not apply" in text
    assert "called more than once" in text
    assert render_sensitivity(document(records), "markdown").startswith("# net.pt")


def test_a_layer_with_outliers_is_the_most_sensitive(context, model, tmp_path):
    with torch.no_grad():
        model.get_submodule("widen").weight[:, 0] *= 500
        for name in ("norm", "shared"):  # What these weights read is zero, so that they only spoil the scale.
            model.get_submodule(name).weight[0] = 0
            model.get_submodule(name).bias[0] = 0
    with run_in(tmp_path / "run") as run:
        found = document(list(analysis.analyse(context, run, images=8)))
    errors = {row["name"]: row["treatments"]["int8"]["error"] for row in found["layers"]}
    assert found["most_sensitive"]["int8"][0] == max(errors, key=errors.__getitem__) == "widen"


def test_a_layer_whose_treatment_leaves_no_numbers_is_the_most_sensitive(records):
    found = copy.deepcopy(records)
    failed = found[2].details["treatments"]["int8"]
    failed |= {"error": None, "sqnr_db": None, "reason": "the outputs are no numbers any more"}
    ranked = document(found)["most_sensitive"]
    assert ranked["int8"][0] == "shared"
    assert "widen" not in ranked["depthwise_separable"]
    for kind in ("text", "markdown"):
        told = " ".join(render_sensitivity(document(found), kind).split())
        assert "NaN: they are no numbers any more" in told
        assert "layer: the outputs are no numbers" not in told


def test_top1_is_that_of_a_full_evaluation_of_the_changed_network(records, context):
    model = capture.copy(context.teacher.model)
    capture.set_training(model, False)
    surgery.fold_norms(model, context.teacher.input)
    sample = sensitivity.sample(model, context.teacher.input, train=context.data.train, images=12)

    def top1(network):
        with torch.no_grad():
            answers = network(torch.cat(sample.measured)).argmax(1)
        return 100 * float(np.mean(answers.numpy() == sample.labels.numpy()))

    assert records[0].details["top1"] == top1(model)
    prune = next(one for one in treatments(levels=63) if one.key == "prune_50")
    for record in records[1:]:
        changed = capture.copy(model)
        made = prune.apply(model.get_submodule(record.step), (), 0)
        changed.set_submodule(record.step, made.module)
        assert record.details["treatments"]["prune_50"]["top1_drop"] == pytest.approx(
            top1(model) - top1(changed)
        )


def test_an_analysis_that_was_killed_goes_on_and_gives_the_same_table(records, context, tmp_path):
    with run_in(tmp_path / "killed") as run:
        half = analysis.analyse(context, run, images=12)
        begun = [next(half) for _ in range(3)]
    with run_in(tmp_path / "killed") as run:
        assert run.resumed
        found = list(analysis.analyse(context, run, images=12))
    assert [record.as_json() for record in found[:3]] == [record.as_json() for record in begun]
    assert [without_times(record) for record in found] == [without_times(record) for record in records]


def test_a_finished_analysis_is_read_back_as_it_was(records, context, tmp_path):
    with run_in(tmp_path / "whole") as run:
        again = list(analysis.analyse(context, run, images=12))
    assert document(again) == document(records)


def test_pictures_to_fit_on_are_others_than_those_to_compare_on(context, model):
    sample = sensitivity.sample(model, context.teacher.input, train=context.data.train, images=5)
    measured, fitted = torch.cat(sample.measured), torch.cat(sample.fitted)
    assert len(measured) == len(fitted) == len(sample.labels) == 5
    assert not any(torch.equal(one, other) for one in measured for other in fitted)


def test_a_network_without_layers_in_floats_is_refused(context, tmp_path):
    from dataclasses import replace

    quantized = replace(context, teacher=replace(context.teacher, precision="int8"))
    with run_in(tmp_path / "run") as run, pytest.raises(NotApplicable, match="INT8 already"):
        next(analysis.analyse(quantized, run, images=4))
