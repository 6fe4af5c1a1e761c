"""The deployable folder and its manifest."""

import dataclasses
import hashlib
import json
import os
import sys
import zipfile

import numpy as np
import pytest

import slimcv
from slimcv import bundle, optimization, report
from slimcv.errors import SlimcvError
from slimcv.manifest import signed
from slimcv.results import Artifact, Latency, Measurement
from slimcv.serving.golden import Golden
from slimcv.step import InputSpec, Variant

MEASURED = Measurement(
    parameters=10,
    buffers=0,
    macs=100,
    latency_ms=Latency(p50=1.0, p90=1.1, p99=None, n=20, spread=0.01),
    threads=2,
)


@pytest.fixture
def exported(tmp_path):
    """Files as a session leaves them, by runtime."""
    folder = tmp_path / "work"
    folder.mkdir()
    contents = {"a.pt2": b"graph", "b.onnx": b"onnx" * 1000, "c.xml": b"<net/>", "c.bin": b"\x00" * 3_000_000}
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    return {"eager": folder / "a.pt2", "onnxruntime": folder / "b.onnx", "openvino": folder / "c.xml"}


def write(folder, files):
    artifacts = [
        artifact
        for runtime, path in files.items()
        for artifact in bundle.place(
            folder, path, runtime, precision="fp32", latency_ms=1.0, max_abs_diff=1e-6
        )
    ]
    return written(folder, artifacts)


def written(folder, artifacts, **more):
    document = report.build(
        model={"source": "m.pt"},
        recipe={"name": "cpu_fast", "text": "name: cpu_fast\n"},
        environment={"cpu": "a CPU", "isa": ["avx2"], "versions": {"torch": "2.13.0"}},
        gate={"max_drop": 1.0, "met": True},
        original=MEASURED,
        optimized=dataclasses.replace(MEASURED, runtime="openvino"),
        records=[],
        artifacts=artifacts,
        seconds=1.0,
    )
    # The bundle reads no graph: the files are already exported.
    variant = Variant(model=None, input=InputSpec(3, 112, 96), classes=("a|b", "é"))  # type: ignore[arg-type]
    return bundle.write(folder, document, variant, serve="openvino", seed=7, **more), document


def test_a_bundle_holds_every_file_at_its_place(tmp_path, exported):
    out = tmp_path / "out"
    write(out, exported)
    found = {str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()}
    assert found == {
        "model.pt2", "model.onnx", "openvino/model.xml", "openvino/model.bin", "report.json", "report.md",
        "MODEL_CARD.md", "slimcv.json",
    }  # fmt: skip
    assert (out / "openvino/model.bin").read_bytes() == b"\x00" * 3_000_000


def test_the_artifacts_of_the_report_can_be_checked_file_by_file(tmp_path, exported):
    out = tmp_path / "out"
    write(out, exported)
    artifacts = json.loads((out / "report.json").read_text())["artifacts"]
    assert len(artifacts) == 4
    for artifact in artifacts:
        content = (out / artifact["path"]).read_bytes()
        assert artifact["bytes"] == len(content)
        assert artifact["sha256"] == hashlib.sha256(content).hexdigest()
    assert [a["path"] for a in artifacts if a["latency_ms"] is None] == ["openvino/model.bin"]


def test_the_manifest_says_what_to_serve_and_how_to_feed_it(tmp_path, exported):
    written, _ = write(tmp_path / "out", exported)
    manifest = bundle.read(tmp_path / "out")
    assert manifest == written
    assert manifest.serve.path == "openvino/model.xml"
    assert (manifest.serve.runtime, manifest.serve.threads) == ("openvino", 2)
    assert (manifest.input.height, manifest.input.width) == (112, 96)
    assert manifest.input.mean == pytest.approx((0.485, 0.456, 0.406))
    assert manifest.classes == ("a|b", "é")
    assert manifest.environment["isa"] == ["avx2"]
    assert (manifest.threads, manifest.seed, manifest.slimcv) == (2, 7, slimcv.__version__)
    assert manifest.recipe["text"] == "name: cpu_fast\n"
    assert set(manifest.files) == {
        "model.pt2", "model.onnx", "openvino/model.xml", "openvino/model.bin", "report.json", "report.md",
        "MODEL_CARD.md",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("precision", "moved", "allowed"), [("int8", 0.02, 0.1), ("int8", 0.2, 0.4), ("fp32", 0.2, 1e-3)]
)
def test_golden_samples_may_differ_by_what_the_integers_moved_this_network(
    tmp_path, exported, precision, moved, allowed
):
    out = tmp_path / "out"
    artifacts = bundle.place(out, exported["openvino"], "openvino", precision=precision)
    samples = Golden(np.zeros((1, 8, 8, 3), np.uint8), np.ones((1, 2), np.float32))
    manifest, _ = written(out, artifacts, golden=samples, moved_by_rounding=moved)
    assert manifest.golden.tolerance == pytest.approx(allowed)
    assert bundle.read(out).golden.tolerance == pytest.approx(allowed)


def test_one_zip_holds_the_whole_bundle_and_is_the_same_every_time(tmp_path, exported):
    out = tmp_path / "out"
    write(out, exported)
    first = bundle.archive(out).read_bytes()
    assert bundle.archive(out).read_bytes() == first
    with zipfile.ZipFile(tmp_path / "out.zip") as packed:
        packed.extractall(tmp_path / "elsewhere")
    assert bundle.read(tmp_path / "elsewhere" / "out") == bundle.read(out)


def test_the_runs_journal_is_no_part_of_the_bundle(tmp_path, exported):
    out = tmp_path / "out"
    write(out, exported)
    (out / "journal.jsonl").write_text("{}\n")
    assert "journal.jsonl" not in bundle.read(out).files
    with zipfile.ZipFile(bundle.archive(out)) as packed:
        assert "out/journal.jsonl" not in packed.namelist()


def test_files_that_are_not_kept_are_removed_and_the_served_one_stays(tmp_path, exported):
    out = tmp_path / "out"
    artifacts = [
        part
        for runtime, path in exported.items()
        for part in bundle.place(out, path, runtime, precision="fp32")
    ]
    kept = bundle.keep_only(out, artifacts, ["eager"], serve="openvino")
    assert [part.path for part in kept] == ["model.pt2", "openvino/model.xml", "openvino/model.bin"]
    assert not (out / "model.onnx").exists()
    assert (out / "openvino" / "model.bin").is_file()


@pytest.mark.parametrize("timed_in", ["inductor", "inductor_unfrozen", "eager_channels_last"])
def test_a_kept_pt2_stays_whatever_it_was_timed_in(tmp_path, exported, timed_in):
    out = tmp_path / "out"
    files = {timed_in: exported["eager"], "onnxruntime": exported["onnxruntime"]}
    artifacts = [
        part for runtime, path in files.items() for part in bundle.place(out, path, runtime, precision="fp32")
    ]
    runtimes, _ = optimization.kept(["pt2"])
    kept = bundle.keep_only(out, artifacts, runtimes, serve="onnxruntime")
    assert [part.path for part in kept] == ["model.pt2", "model.onnx"]
    assert (out / "model.pt2").is_file()


def test_a_changed_file_is_named(tmp_path, exported):
    out = tmp_path / "out"
    write(out, exported)
    content = bytearray((out / "model.onnx").read_bytes())
    content[10] ^= 1
    (out / "model.onnx").write_bytes(content)
    with pytest.raises(SlimcvError, match=r"model\.onnx: changed since"):
        bundle.read(out)
    assert bundle.read(out, verify=False).files


def test_a_cut_file_is_named_with_both_sizes(tmp_path, exported):
    out = tmp_path / "out"
    write(out, exported)
    os.truncate(out / "openvino/model.bin", 5)
    with pytest.raises(SlimcvError, match=r"model\.bin: 5 bytes, the manifest says 3000000"):
        bundle.read(out)


def test_a_missing_file_is_named(tmp_path, exported):
    out = tmp_path / "out"
    write(out, exported)
    (out / "model.pt2").unlink()
    with pytest.raises(SlimcvError, match=r"model\.pt2: missing"):
        bundle.read(out)


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"schema_version": 2}', "[" * 100_000])
def test_a_broken_manifest_is_an_error_with_a_hint(tmp_path, text):
    (tmp_path / "slimcv.json").write_text(text)
    with pytest.raises(SlimcvError, match=r"slimcv\.json") as caught:
        bundle.read(tmp_path)
    assert caught.value.hint


@pytest.mark.parametrize("name", ["../outside", "/etc/passwd", "a/../../b"])
def test_a_manifest_cannot_point_outside_its_folder(tmp_path, exported, name):
    out = tmp_path / "out"
    write(out, exported)
    manifest = json.loads((out / "slimcv.json").read_text())
    manifest["files"][name] = manifest["files"]["model.pt2"]
    (out / "slimcv.json").write_bytes(signed(manifest))
    with pytest.raises(SlimcvError, match="leaves the folder"):
        bundle.read(out)


def test_a_folder_without_a_manifest_is_not_a_bundle(tmp_path):
    with pytest.raises(SlimcvError, match="not a finished bundle"):
        bundle.read(tmp_path)


def test_placing_a_file_takes_the_old_manifest_away_first(tmp_path, exported):
    out = tmp_path / "out"
    write(out, exported)
    bundle.place(out, exported["eager"], "eager", precision="fp32")
    with pytest.raises(SlimcvError, match="not a finished bundle"):
        bundle.read(out)


def test_writing_a_bundle_again_takes_the_old_manifest_away_first(tmp_path, exported):
    """The report cannot be written where a folder stands, so that writing ends half-way."""
    out = tmp_path / "out"
    write(out, exported)
    (out / "report.json").unlink()
    (out / "report.json").mkdir()
    artifacts = [Artifact("openvino/model.xml", "openvino", "fp32", 1, "0" * 64)]
    with pytest.raises(SlimcvError, match=r"report\.json"):
        written(out, artifacts)
    with pytest.raises(SlimcvError, match="not a finished bundle"):
        bundle.read(out)


def test_a_file_written_anew_is_what_the_manifest_lists(tmp_path, exported):
    out = tmp_path / "out"
    before, _ = write(out, exported)
    bundle.renew(out, "report.md", b"another page")
    manifest = bundle.read(out)
    assert manifest.files["report.md"].bytes == len(b"another page")
    assert {name for name in manifest.files if manifest.files[name] != before.files[name]} == {"report.md"}
    bundle.renew(out, "notes.txt", b"not of the bundle")
    assert bundle.read(out) == manifest
    (out / ".slimcv.json.partial").symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space"):
        bundle.renew(out, "report.md", b"a page on a full disk")
    assert bundle.read(out, verify=False) == manifest, "a bundle it stays"
    (out / "slimcv.json").write_text("{}")
    bundle.renew(out, "report.md", b"a third one")
    assert (out / "slimcv.json").read_text() == "{}"


def test_a_runtime_without_a_file_cannot_be_served(tmp_path, exported):
    del exported["openvino"]
    with pytest.raises(SlimcvError, match="no file for openvino") as caught:
        write(tmp_path / "out", exported)
    assert "model.onnx" in caught.value.hint


def test_a_folder_that_cannot_be_written_is_an_error_without_leftovers(tmp_path, exported):
    (tmp_path / "out").write_text("a file, not a folder")
    with pytest.raises(SlimcvError) as caught:
        bundle.place(tmp_path / "out", exported["eager"], "eager", precision="fp32")
    assert "--out" in caught.value.hint


def test_a_failed_copy_leaves_the_file_that_was_there(tmp_path, exported):
    out = tmp_path / "out"
    bundle.place(out, exported["eager"], "eager", precision="fp32")
    exported["eager"].unlink()
    exported["eager"].mkdir()
    with pytest.raises(SlimcvError):
        bundle.place(out, exported["eager"], "eager", precision="fp32")
    assert (out / "model.pt2").read_bytes() == b"graph"
    assert [path.name for path in out.iterdir()] == ["model.pt2"]


def test_reading_a_bundle_does_not_import_torch(tmp_path, exported):
    import subprocess

    write(tmp_path / "out", exported)
    code = (
        "import sys, pathlib; from slimcv import bundle; bundle.read(pathlib.Path(sys.argv[1])); "
        "sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "out")], check=True)
