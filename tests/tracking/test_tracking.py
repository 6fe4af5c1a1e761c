"""What is logged to a tracker is what the run's files say; a tracker that fails costs the run nothing."""

import dataclasses
import importlib.util
import json
import logging
import os
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient
from torch import nn

import slimcv
from slimcv import bundle, report, tracking
from slimcv.errors import SlimcvError
from slimcv.results import Artifact, Latency, Measurement, Paired, Record
from slimcv.serving.verification import Limits, verify

ORIGINAL = Measurement(1000, 10, 5000, 4000, Latency(10.0, 11.0, None, 50, 0.01), top1=90.0)
OPTIMIZED = dataclasses.replace(
    ORIGINAL,
    latency_ms=Latency(2.0, 2.2, None, 50, 0.02),
    runtime="openvino",
    precision="int8",
    top1=89.5,
    paired=Paired.counted(3, 2, 200),
)
HISTORY = [{"number": number, "loss": 1.0 / number, "lr": 0.1, "tuning_top1": None} for number in (1, 2, 3)]


@pytest.fixture
def folder(tmp_path):
    """A run directory as `slimcv optimize` leaves it, of a run in which one step trained."""
    trained = {"variant": {"finetune": {"history": HISTORY}}}
    records = [
        Record(0, -1, "original", "measured", "", 1.0, measurement=ORIGINAL),
        Record(1, 0, "finetune", "accepted", "", 9.0, measurement=OPTIMIZED, details=trained),
        Record(2, 1, "fuse_conv_bn", "rejected", "no gain", 2.0, measurement=OPTIMIZED, details=trained),
    ]
    entries = [{"step": "finetune", "parameters": {"epochs": 3}, "recover": None, "gate": {"max_drop": 8}}]
    document = report.build(
        model={"source": "net.pt", "input": "3x32x32"},
        recipe={"name": "mine", "text": "steps: [finetune]\n", "entries": entries},
        environment={"cpu": "a CPU", "versions": {"torch": "2.13.0"}},
        gate={
            "max_drop": 1.0,
            "met": True,
            "decided": False,
            "undecided": ["max_drop"],
            "pictures_needed": 900,
        },
        original=ORIGINAL,
        optimized=OPTIMIZED,
        records=records,
        artifacts=[Artifact("model.onnx", "onnxruntime", "int8", 10, "0" * 64)],
        intervals={"latency_p50": {"value": 5.0, "low": 4.9, "high": 5.1}},
        data={"source": "pictures/", "val": 200, "classes": ["a", "b"]},
        seconds=12.0,
    )
    made = tmp_path / "net-slim"
    made.mkdir()
    (made / "report.json").write_text(report.render(document, "json"))
    (made / "report.html").write_text("<!doctype html>")
    (made / "slimcv.json").write_text("{}")
    (made / "model.onnx").write_bytes(b"weights")
    return made


@pytest.fixture
def store(tmp_path, monkeypatch):
    """A tracker that writes to a folder, and a client that reads it."""
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.delenv("MLFLOW_EXPERIMENT_NAME", raising=False)
    tracker = tracking.find(f"mlflow:{tmp_path / 'tracked runs'}")
    return tracker, MlflowClient(tracking_uri=tracker.uri)


def runs(client):
    return client.search_runs([client.get_experiment_by_name("slimcv").experiment_id])


def test_a_run_is_logged_with_parameters_figures_curves_and_files(folder, store):
    tracker, client = store
    tracking.track(tracker, tracking.of_run(folder))
    (run,) = runs(client)
    assert run.info.status == "FINISHED"
    assert run.info.run_name == "net-slim"
    assert run.data.params["recipe"] == "mine"
    assert run.data.params["01.finetune.epochs"] == "3"
    assert run.data.params["01.finetune.gate.max_drop"] == "8"
    assert run.data.params["environment.versions.torch"] == "2.13.0"
    assert run.data.params["step.02"] == "fuse_conv_bn: rejected"
    assert "data.classes" not in run.data.params
    assert run.data.tags["slimcv.gate"] == "met, not decided"
    assert "not decidable with n = 200 pictures" in run.data.tags["mlflow.note.content"]
    assert run.data.metrics["optimized.top1"] == 89.5
    assert run.data.metrics["optimized.paired.lost"] == 3
    assert run.data.metrics["ratios.latency_p50_low"] == 4.9
    assert "optimized.top5" not in run.data.metrics
    steps = client.get_metric_history(run.info.run_id, "step.latency_ms.p50")
    assert [(one.step, one.value) for one in steps] == [(0, 10.0), (1, 2.0), (2, 2.0)]
    loss = client.get_metric_history(run.info.run_id, "training.01.finetune.loss")
    assert [(one.step, one.value) for one in loss] == [(1, 1.0), (2, 0.5), (3, pytest.approx(1 / 3))]
    assert not any(key.startswith("training.02") for key in run.data.metrics)
    names = {artifact.path for artifact in client.list_artifacts(run.info.run_id)}
    assert names == {"report.json", "report.html", "slimcv.json", "recipe.yaml", "model.onnx"}


def test_what_is_downloaded_is_a_whole_bundle(tmp_path, store):
    network = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)
    )
    (tmp_path / "mine.yaml").write_text("steps: [export_onnx, export_openvino]")
    run = slimcv.optimize(
        network,
        recipe=str(tmp_path / "mine.yaml"),
        input="3x16x16",
        out=tmp_path / "out",
        threads=1,
        quick=True,
    )
    tracker, client = store
    tracking.track(tracker, tracking.of_run(run.folder))
    (logged,) = runs(client)
    downloaded = Path(client.download_artifacts(logged.info.run_id, "", tmp_path))
    assert bundle.read(downloaded).files == bundle.read(run.folder).files
    assert verify(downloaded, Limits()).passed


def test_the_same_result_is_logged_once(folder, store):
    tracker, client = store
    for _ in range(2):
        tracking.track(tracker, tracking.of_run(folder))
    assert len(runs(client)) == 1
    changed = json.loads((folder / "report.json").read_text())
    (folder / "report.json").write_text(json.dumps({**changed, "seconds": 13.0}))
    tracking.track(tracker, tracking.of_run(folder))
    assert len(runs(client)) == 2


def test_a_store_that_cannot_be_written_is_warned_about_once(folder, tmp_path, caplog):
    (tmp_path / "file").write_text("no folder")
    tracker = tracking.find(f"mlflow:{tmp_path / 'file'}")
    with caplog.at_level(logging.INFO, "slimcv"):
        tracking.track(tracker, tracking.of_run(folder))
    (line,) = caplog.records
    assert line.levelno == logging.WARNING
    assert line.getMessage().startswith("not tracked in file:")


def test_a_server_that_is_not_there_is_warned_about_once(folder, monkeypatch, caplog, capfd):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with caplog.at_level(logging.INFO, "slimcv"):
        tracking.track(tracking.find("mlflow:http://127.0.0.1:9"), tracking.of_run(folder))
    assert [line.levelno for line in caplog.records if line.name == "slimcv"] == [logging.WARNING]
    assert capfd.readouterr().out == ""


def test_a_ladder_is_logged_row_by_row(tmp_path, store):
    rows = [
        {
            "name": name,
            "title": name,
            "measurement": {"top1": top1, "latency_ms": {"p50": 2.0}},
            "training": {"images_per_second": 10.0, "notes": []},
            "ratios": {},
        }
        for name, top1 in (("original", 90.0), ("pooling", 89.0))
    ]
    names = ("model", "data", "epochs", "seed", "threads", "train_threads", "environment")
    made = {**{key: {"name": key} for key in names}, "epochs": 1, "rows": rows, "seconds": 3.0}
    (tmp_path / "ladder" / "recipes").mkdir(parents=True)
    (tmp_path / "ladder" / "ladder.json").write_text(json.dumps(made))
    (tmp_path / "ladder" / "report.html").write_text("<!doctype html>")
    (tmp_path / "ladder" / "recipes" / "pooling.yaml").write_text("steps: []")
    tracker, client = store
    tracking.track(tracker, tracking.of_ladder(tmp_path / "ladder"))
    (run,) = runs(client)
    history = client.get_metric_history(run.info.run_id, "measurement.top1")
    assert [(one.step, one.value) for one in history] == [(0, 90.0), (1, 89.0)]
    assert run.data.params["row.01"] == "pooling"
    assert "report.html" in [one.path for one in client.list_artifacts(run.info.run_id)]
    assert [one.path for one in client.list_artifacts(run.info.run_id, "recipes")] == ["recipes/pooling.yaml"]


def test_a_comparison_is_logged_with_its_json_and_its_page(store, tmp_path):
    from slimcv.bench import Comparison, Ratio, Row

    row = Row("net.pt in eager", "eager", "fp32", 1, 1, 1, 10, 2.0, 2.1, None, 20, 0.01)
    row = dataclasses.replace(row, ratio=Ratio(1.0, 1.0, 1.0), throughput_ips=500.0, first_call_ms=3.0)
    other = Row("<odd> name/(x)", "onnxruntime", None, 1, 1, 1, problem="does not load")
    tracker, client = store
    tracking.track(tracker, tracking.of_bench(Comparison("latency", (row, other)).as_json()))
    (run,) = runs(client)
    assert run.data.metrics["row.p50_ms"] == 2.0
    assert run.data.params["row.01.problem"] == "does not load"
    names = [artifact.path for artifact in client.list_artifacts(run.info.run_id)]
    assert names == ["bench.json", "report.html"]
    page = Path(client.download_artifacts(run.info.run_id, "report.html", tmp_path)).read_text("utf-8")
    assert page.startswith("<!DOCTYPE html>")
    assert "net.pt in eager" in page


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("mlfow", "there is no tracker 'mlfow'", "mlflow"),
        ("wandb:x", "there is no tracker 'wandb'", "mlflow"),
    ],
)
def test_an_unknown_tracker_is_refused(text, message, hint):
    with pytest.raises(SlimcvError, match=message) as caught:
        tracking.find(text)
    assert hint in caught.value.hint


@pytest.mark.parametrize(
    ("missing", "text"), [("mlflow", "mlflow"), ("sqlalchemy", "mlflow:sqlite:///runs.db")]
)
def test_what_is_not_installed_is_said_with_the_command_that_installs_it(missing, text, monkeypatch):
    known = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == missing else known(name))
    with pytest.raises(SlimcvError) as caught:
        tracking.find(text)
    assert "pip install" in caught.value.hint


def test_the_uri_is_that_of_the_option_else_of_the_environment_else_a_folder(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert tracking.find(None) is None
    assert tracking.find("mlflow").uri == (tmp_path / "mlruns").as_uri()
    assert tracking.find("mlflow:a b").uri == f"file://{tmp_path}/a%20b"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://tracker:5000")
    assert tracking.find("mlflow").uri == "http://tracker:5000"
    assert tracking.find("mlflow:databricks").uri == "databricks"
    assert os.environ.get("MLFLOW_DISABLE_TELEMETRY", "true") == "true"
