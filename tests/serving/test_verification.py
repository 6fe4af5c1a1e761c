"""A bundle is verified where it is to serve: damage, other answers, a slow machine and lost accuracy show."""

import json
import shutil
import sys

import numpy as np
import pytest
from PIL import Image

from slimcv import bundle, cli, data, packed
from slimcv.errors import SlimcvError
from slimcv.manifest import signed
from slimcv.measure.threads import available
from slimcv.serving import golden, load
from slimcv.serving.verification import Limits, verify


def outcomes(found):
    return {check.name: check.outcome for check in found.checks}


def test_a_whole_bundle_passes(folder):
    found = verify(folder, Limits(max_latency_ms=60_000.0, min_agreement=100.0))
    assert found.passed
    assert outcomes(found)["files"] == "passed"
    assert outcomes(found)["golden samples"] == "passed"
    assert outcomes(found)["agreement"] == "passed"
    assert outcomes(found)["latency p50"] == "passed"
    json.dumps(found.as_json(), allow_nan=False)


FILES = (
    "MODEL_CARD.md",
    "golden.npz",
    "model.onnx",
    "model.pt2",
    "openvino/model.bin",
    "openvino/model.xml",
    "report.html",
    "report.json",
    "report.md",
    "slimcv.json",
)


def test_all_files_of_a_bundle_are_tried(folder):
    found = [str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()]
    assert sorted(found) == list(FILES)


@pytest.mark.parametrize("name", FILES)
def test_a_flipped_bit_in_any_file_is_found_and_nothing_is_run(folder, name):
    content = bytearray((folder / name).read_bytes())
    content[len(content) // 2] ^= 1
    (folder / name).write_bytes(content)
    found = verify(folder, Limits())
    assert found.damaged
    (failed,) = [check for check in found.checks if check.outcome == "failed"]
    assert failed.name == f"file {name}"
    assert "latency p50" not in outcomes(found)


def test_other_answers_than_the_expected_ones_fail(folder):
    manifest = json.loads((folder / bundle.MANIFEST).read_text())
    samples = golden.read(folder / "golden.npz")
    other = golden.Golden(samples.pixels, np.roll(samples.outputs, 1, axis=1)).packed()
    (folder / "golden.npz").write_bytes(other)
    manifest["files"]["golden.npz"] = {"bytes": len(other), "sha256": bundle.sha256(folder / "golden.npz")}
    (folder / bundle.MANIFEST).write_bytes(signed(manifest))
    found = verify(folder, Limits(min_agreement=90.0))
    assert not found.damaged
    assert outcomes(found)["golden samples"] == "failed"
    assert outcomes(found)["agreement"] == "failed"


def test_a_limit_that_is_missed_fails_alone(folder, pictures):
    found = verify(folder, Limits(max_latency_ms=1e-6, min_top1=99.0), source=str(pictures))
    assert [name for name, outcome in outcomes(found).items() if outcome == "failed"] == ["latency p50"]
    assert outcomes(found)["top-1"] == "passed"


def test_top1_is_that_of_the_pictures_which_the_run_held_back(folder, pictures):
    """Every other picture shows another colour than its folder says, so that top-1 depends on the choice."""
    for name in ("blue", "green", "<red>"):
        for number in (1, 3, 5):
            Image.new("RGB", (30, 40), (127, 128, 127)).save(pictures / name / f"{number}.png")
    manifest = json.loads((folder / bundle.MANIFEST).read_text())
    model = load(folder, threads=1)

    def top1(seed):
        val = data.load(str(pictures), seed=seed, classes=model.classes, input=model.input).val
        return 100 * float((model.outputs(val.pixels(16, 12, 3)).argmax(axis=1) == val.labels).mean())

    known = top1(0)
    seed = next(seed for seed in range(1, 100) if top1(seed) != known)
    (folder / bundle.MANIFEST).write_bytes(signed({**manifest, "seed": seed}))
    checks = {check.name: check for check in verify(folder, Limits(), source=str(pictures)).checks}
    assert checks["top-1"].value == pytest.approx(top1(seed))


def test_where_it_was_made_is_compared_with_here(folder):
    manifest = json.loads((folder / bundle.MANIFEST).read_text())
    manifest["environment"]["isa"] = ["avx2", "amx_of_tomorrow"]
    manifest["environment"]["versions"]["onnxruntime"] = "99.0"
    (folder / bundle.MANIFEST).write_bytes(signed(manifest))
    notes = {check.name: check.detail for check in verify(folder, Limits()).checks}
    assert "amx_of_tomorrow" in notes["instruction sets"]
    assert "older than 99.0" in notes["runtime version"]


def test_the_runtime_that_is_asked_for_is_the_one_whose_version_is_compared(folder):
    manifest = json.loads((folder / bundle.MANIFEST).read_text())
    manifest["environment"]["versions"]["openvino"] = "99.0"
    (folder / bundle.MANIFEST).write_bytes(signed(manifest))
    assert "runtime version" not in outcomes(verify(folder, Limits()))
    notes = {check.name: check.detail for check in verify(folder, Limits(), runtime="openvino").checks}
    assert "openvino" in notes["runtime version"]


@pytest.fixture
def too_new(folder):
    """The served file is in a form of ONNX to come, as an older runtime finds it."""
    import onnx

    model = onnx.load(folder / "model.onnx")
    model.ir_version = 99
    onnx.save(model, folder / "model.onnx")
    entry = {
        "bytes": (folder / "model.onnx").stat().st_size,
        "sha256": bundle.sha256(folder / "model.onnx"),
    }
    manifest = json.loads((folder / bundle.MANIFEST).read_text())
    manifest["files"]["model.onnx"] = entry
    manifest["environment"]["versions"]["onnxruntime"] = "99.0"
    (folder / bundle.MANIFEST).write_bytes(signed(manifest))
    return folder


def test_a_runtime_too_old_for_the_file_is_named_with_both_versions(too_new):
    found = verify(too_new, Limits())
    assert not found.damaged
    failed = {check.name: check.detail for check in found.checks if check.outcome == "failed"}
    assert list(failed) == ["runtime"]
    assert "does not load" in failed["runtime"]
    assert "older than 99.0" in failed["runtime"]
    assert verify(too_new, Limits(), runtime="openvino", threads=1).checks[-1].name == "latency p50"


def test_a_runtime_that_does_not_take_the_file_is_code_3_and_stands_in_the_json(too_new, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["slimcv", "verify", str(too_new), "--format", "json"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 3
    document = json.loads(capsys.readouterr().out)
    assert not document["damaged"]
    assert [check["name"] for check in document["checks"] if check["outcome"] == "failed"] == ["runtime"]


def test_a_runtime_that_is_not_installed_fails_the_check_and_one_without_a_file_is_bad_input(
    folder, monkeypatch
):
    with pytest.raises(SlimcvError, match="no file for aotinductor"):
        verify(folder, Limits(), runtime="aotinductor")
    monkeypatch.setitem(sys.modules, "openvino", None)
    found = verify(folder, Limits(), runtime="openvino")
    assert found.checks[-1].outcome == "failed"
    assert "openvino is not installed" in found.checks[-1].detail


def test_no_more_threads_run_than_are_allowed_here(folder):
    manifest = json.loads((folder / bundle.MANIFEST).read_text())
    manifest["serve"]["threads"] = 4096
    (folder / bundle.MANIFEST).write_bytes(signed(manifest))
    checks = {check.name: check for check in verify(folder, Limits()).checks}
    assert checks["threads"].value == available()
    assert "4096" in checks["threads"].detail
    assert f"threads: {available()} here" in checks["latency p50"].detail
    assert "threads" not in outcomes(verify(folder, Limits(), threads=1))


def test_pictures_of_another_number_of_classes_than_outputs_are_refused(folder, pictures):
    """The bundle has no class names that would tell."""
    manifest = json.loads((folder / bundle.MANIFEST).read_text())
    manifest["classes"] = None
    (folder / bundle.MANIFEST).write_bytes(signed(manifest))
    shutil.rmtree(pictures / "green")
    with pytest.raises(SlimcvError, match="the model has 3 outputs, the data 2 classes"):
        verify(folder, Limits(), source=str(pictures))


def test_a_folder_that_is_not_there_is_said_to_be_missing_and_not_damaged(tmp_path):
    with pytest.raises(SlimcvError, match=r"there is no bundle .*gone"):
        verify(tmp_path / "gone", Limits())


def test_an_accuracy_without_pictures_is_refused(folder):
    with pytest.raises(SlimcvError, match="labelled pictures"):
        verify(folder, Limits(min_top1=90.0))


def test_golden_samples_that_are_none_are_refused(tmp_path):
    (tmp_path / "golden.npz").write_bytes(b"PK\x03\x04 cut")
    with pytest.raises(SlimcvError, match="no golden samples"):
        golden.read(tmp_path / "golden.npz")


def test_golden_samples_are_the_same_bytes_for_the_same_samples(folder):
    samples = golden.read(folder / "golden.npz")
    assert samples.pixels.shape == (golden.COUNT, 16, 12, 3)
    assert samples.packed() == (folder / "golden.npz").read_bytes()


def test_there_are_sixteen_golden_samples_where_pictures_are_fewer(folder, pictures, variant):
    split = data.load(str(pictures), classes=variant.classes, input=variant.input).val
    assert 0 < len(split) < golden.COUNT
    made = golden.made(folder / "model.onnx", "onnxruntime", variant.input, split=split, threads=1, seed=0)
    assert len(made.pixels) == len(made.outputs) == golden.COUNT
    assert (made.pixels[: len(split)] == split.pixels(16, 12, 3)[: len(split)]).all()
    assert len({picture.tobytes() for picture in made.pixels[len(split) :]}) == golden.COUNT - len(split)


@pytest.fixture
def slim(folder, tmp_path):
    return tmp_path / "model.slim", folder


def test_a_packed_file_is_verified_like_the_bundle_it_was_made_of(slim, pictures):
    path, folder = slim
    packed.pack(folder, out=path, with_samples=True)
    limits = Limits(max_latency_ms=60_000.0, min_agreement=100.0, min_top1=99.0)
    found = verify(path, limits, source=str(pictures))
    assert found.passed
    assert [name for name, outcome in outcomes(found).items() if outcome == "passed"] == [
        "files", "golden samples", "agreement", "latency p50", "top-1"
    ]  # fmt: skip
    differences = [
        next(check.value for check in each.checks if check.name == "golden samples")
        for each in (found, verify(folder, Limits()))
    ]
    assert differences[0] == differences[1]
    assert verify(path, Limits(), runtime="openvino").passed


def test_one_packed_without_golden_samples_says_what_it_could_not_check(slim):
    path, folder = slim
    packed.pack(folder, out=path)
    found = verify(path, Limits(max_latency_ms=60_000.0))
    assert found.passed
    notes = {check.name: check.detail for check in found.checks if check.outcome == "noted"}
    assert "--with-samples" in notes["golden samples"]
    assert "not compared" in notes["golden samples"]
    assert "not packed" in notes["environment"]
    asked = verify(path, Limits(min_agreement=90.0))
    assert outcomes(asked)["agreement"] == "failed", "what was asked for and cannot be checked is not passed"


def test_one_packed_from_an_onnx_file_alone_is_timed_and_the_rest_is_noted(slim):
    path, folder = slim
    packed.pack(folder / "model.onnx", out=path)
    found = verify(path, Limits(max_latency_ms=60_000.0))
    assert found.passed
    assert outcomes(found) == {
        "files": "passed", "manifest": "noted", "golden samples": "noted", "latency p50": "passed",
    } | {name: "noted" for name in outcomes(found) if name == "int8"}  # fmt: skip


def test_a_flipped_bit_anywhere_in_a_packed_file_is_found_and_nothing_is_run(slim):
    path, folder = slim
    packed.pack(folder, out=path, with_samples=True)
    whole = path.read_bytes()
    for place in (9, 50, 90, len(whole) // 2, len(whole) - 1):
        content = bytearray(whole)
        content[place] ^= 1
        path.write_bytes(content)
        found = verify(path, Limits())
        assert found.damaged, place
        assert list(outcomes(found)) == ["file model.slim"]


def test_other_answers_than_a_packed_file_expects_fail(slim):
    path, folder = slim
    samples = golden.read(folder / "golden.npz")
    other = golden.Golden(samples.pixels, np.roll(samples.outputs, 1, axis=1)).packed()
    (folder / "golden.npz").write_bytes(other)
    manifest = json.loads((folder / bundle.MANIFEST).read_text())
    manifest["files"]["golden.npz"] = {"bytes": len(other), "sha256": bundle.sha256(folder / "golden.npz")}
    (folder / bundle.MANIFEST).write_bytes(signed(manifest))
    packed.pack(folder, out=path, with_samples=True)
    found = verify(path, Limits(min_agreement=90.0))
    assert not found.damaged
    assert (outcomes(found)["golden samples"], outcomes(found)["agreement"]) == ("failed", "failed")


def test_the_command_takes_a_packed_file_and_ends_with_its_codes(slim, monkeypatch, capsys):
    path, folder = slim
    packed.pack(folder, out=path, with_samples=True)

    def call(*words):
        monkeypatch.setattr(sys, "argv", ["slimcv", "verify", str(path), *words])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        return ended.value.code, capsys.readouterr().out

    assert call()[0] == 0
    assert call("--max-latency-ms", "0.000001")[0] == 3
    path.write_bytes(path.read_bytes()[:-1])
    code, said = call()
    assert code == 2
    assert "model.slim" in said
