"""`slimcv report` on a folder on the disk."""

import csv
import hashlib
import io
import json
import sys
import webbrowser

import pytest

from slimcv import bundle, cli, report
from slimcv.manifest import signed
from slimcv.results import Artifact, Latency, Measurement, Record


@pytest.fixture
def run(tmp_path):
    """A folder with the report of a small run."""
    before = Measurement(1000, 0, 5000, 4000, Latency(10.0, 11.0, None, 50, 0.01), top1=90.0)
    after = Measurement(500, 0, 2000, 2000, Latency(2.0, 2.2, None, 50, 0.01), "openvino", "int8", top1=89.5)
    shipped = Record(1, -1, "ship", "accepted", "=1+1", 1.0, after, before)
    document = report.build(
        model={"source": "model.pt"},
        recipe={"name": "cpu_fast"},
        environment={"cpu": "a CPU"},
        gate={"max_drop": 1.0, "met": True},
        original=before,
        optimized=after,
        records=[Record(0, -1, "original", "measured", "", 1.0, before), shipped],
        artifacts=[Artifact("model.onnx", "onnxruntime", "int8", 2000, "0" * 64)],
        seconds=2.0,
    )
    folder = tmp_path / "model-slim"
    folder.mkdir()
    (folder / "report.json").write_text(report.render(document, "json"))
    return folder


@pytest.fixture
def call(monkeypatch, capsys):
    def called(*words):
        monkeypatch.setattr(sys, "argv", ["slimcv", "report", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        said = capsys.readouterr()
        return ended.value.code, said.out, said.err

    return called


def test_a_page_is_written_beside_the_report(call, run):
    code, out, err = call(run)
    assert (code, out) == (0, "")
    assert str(run / "report.html") in err
    assert "5.00× faster" in (run / "report.html").read_text()


def test_the_page_of_a_bundle_stays_one_of_its_files(call, run):
    manifest = {
        "schema_version": 1,
        "slimcv": "0.1.0",
        "created": "",
        "serve": {"path": "model.onnx", "runtime": "onnxruntime", "precision": "int8", "threads": 1},
        "input": {"channels": 3, "height": 8, "width": 8, "mean": [0, 0, 0], "std": [1, 1, 1]},
        "classes": None,
        "files": {
            name: {"bytes": 3, "sha256": hashlib.sha256(b"old").hexdigest()}
            for name in ("model.onnx", "report.html")
        },
        "environment": {},
        "threads": 1,
        "seed": 0,
        "recipe": {},
    }
    (run / "slimcv.json").write_bytes(signed(manifest))
    for name in manifest["files"]:
        (run / name).write_text("old")
    assert call(run)[0] == 0
    assert bundle.read(run).files["report.html"].bytes == (run / "report.html").stat().st_size


def test_several_runs_make_one_page_in_the_working_directory(call, run, tmp_path, monkeypatch):
    other = tmp_path / "other-slim"
    run.rename(other)
    run.mkdir()
    (run / "report.json").write_bytes((other / "report.json").read_bytes())
    monkeypatch.chdir(tmp_path)
    assert call(run, other)[0] == 0
    assert "2 runs side by side" in (tmp_path / "comparison.html").read_text()
    assert call(run, other, "--format", "md")[1].startswith("# 2 runs side by side\n")
    assert len(json.loads(call(run, other, "--format", "json")[1])["reports"]) == 2


def test_other_formats_go_to_the_terminal_or_a_file(call, run, tmp_path):
    assert json.loads(call(run, "--format", "json")[1]) == json.loads((run / "report.json").read_text())
    assert call(run, "--format", "md")[1].startswith("# model.pt")
    assert call(run, "--format", "csv", "--out", tmp_path / "run.csv")[1] == ""
    rows = list(csv.DictReader(io.StringIO((tmp_path / "run.csv").read_text())))
    assert [row["name"] for row in rows] == ["original", "ship", "original", "optimized"]
    assert float(rows[1]["latency_p50_ms"]) == 2.0
    assert rows[1]["reason"] == "'=1+1", "a spreadsheet must not compute what comes from a run"


def test_the_page_is_opened_where_that_is_asked_for(call, run, monkeypatch):
    shown = []
    monkeypatch.setattr(webbrowser, "open", lambda address: shown.append(address) or True)
    assert call(run, "--open")[0] == 0
    assert shown == [(run / "report.html").as_uri()]


@pytest.mark.parametrize(
    ("words", "hint"),
    [(("missing",), "give the folder of a run"), (("--format", "csv", "--open"), "leave --format away")],
)
def test_what_cannot_be_shown_is_refused(call, run, words, hint):
    code, _, err = call(run, *words)
    assert code == 2
    assert hint in err


def test_a_file_that_cannot_be_written_is_named(call, run, tmp_path):
    code, _, err = call(run, "--out", tmp_path / "no" / "folder" / "page.html")
    assert code == 2
    assert "page.html" in err
