"""A packed bundle answers like the bundle, from one file and without torch; and the commands around it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest

import slimcv
from slimcv import bench, cli, packed
from slimcv.bundle import PLACES, sha256
from slimcv.errors import SlimcvError
from slimcv.manifest import signed
from slimcv.packed import manifest, packing
from slimcv.runtimes import openvino
from slimcv.serving import layouts


@pytest.fixture
def slim(folder, tmp_path):
    return packed.pack(folder, out=tmp_path / "model.slim").path


@pytest.fixture
def call(monkeypatch, capsys):
    def run(*words):
        monkeypatch.setattr(sys, "argv", ["slimcv", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        said = capsys.readouterr()
        return ended.value.code, said.out, said.err

    return run


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_it_answers_like_the_bundle(slim, folder, pictures, runtime):
    pixels = np.random.default_rng(0).integers(0, 256, (3, 16, 12, 3), dtype=np.uint8)
    one, other = (slimcv.load(place, runtime=runtime, threads=1) for place in (slim, folder))
    assert one.runtime == runtime
    assert (one.outputs(pixels) == other.outputs(pixels)).all()
    assert one.predict(pictures / "<red>" / "0.png") == other.predict(pictures / "<red>" / "0.png")


def test_the_manifest_of_the_bundle_is_in_it(slim, folder):
    there, here = (slimcv.load(place, threads=1).manifest for place in (folder, slim))
    assert (here.classes, here.input, here.license) == (there.classes, there.input, there.license)
    assert here.files == {"model.onnx": there.files["model.onnx"]}
    assert here.environment == {}


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_it_is_served_without_torch(slim, pictures, runtime):
    code = (
        "import sys, slimcv\n"
        f"found = slimcv.load(sys.argv[1], runtime='{runtime}').predict(sys.argv[2])\n"
        "loaded = {'torch', 'onnx', 'pandas', 'rich', 'typer'} & set(sys.modules)\n"
        "print(found.label, sorted(loaded))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, slim, pictures / "blue" / "0.png"],
        capture_output=True, text=True, check=True, env=os.environ,
    )  # fmt: skip
    assert done.stdout.split("\n")[0] == "blue []"


def serving(folder, runtime, precision="fp32", **changed):
    """Make the bundle one that serves another file, with these files changed."""
    manifest = json.loads((folder / "slimcv.json").read_text())
    manifest["serve"] |= {"runtime": runtime, "path": PLACES[runtime], "precision": precision}
    for name, text in changed.items():
        (folder / name).write_text(text)
        manifest["files"][name] = {"bytes": len(text.encode()), "sha256": sha256(folder / name)}
    (folder / "slimcv.json").write_bytes(signed(manifest))


def test_what_openvino_is_to_compute_in_comes_along(folder, tmp_path):
    name = "openvino/model.xml"
    hint = '<rt_info><slimcv><inference_precision value="f32" /></slimcv>'
    serving(folder, "openvino", **{name: (folder / name).read_text().replace("<rt_info>", hint)})
    assert slimcv.load(folder, threads=1).runtime == "openvino"
    slim = packed.pack(folder, out=tmp_path / "model.slim").path
    predictor = slimcv.load(slim, threads=1)
    assert predictor.manifest.inference_precision == "f32"
    assert predictor.runtime == "openvino"
    (target,) = bench.targets(slim, tmp_path / "unpacked")
    assert openvino.noted_precision(target.path) == "f32", "and is timed so"


@pytest.mark.parametrize(
    ("runtime", "form", "same"),
    [
        ("openvino", "nncf", False),
        ("openvino", "fp32", False),
        ("eager", "bf16", False),
        ("openvino", None, True),
        ("onnxruntime", "qdq", True),
    ],
)
def test_a_network_beside_the_one_that_is_served_is_packed_as_what_it_is(
    runtime, form, same, folder, tmp_path, caplog
):
    """Another quantiser's file, or one in floats, may be served beside an ONNX file of other numbers."""
    report = json.loads((folder / "report.json").read_text())
    quantizer = form if form in ("nncf", "qdq") else None
    report["steps"] = [{"step": "ship", "details": {"form": form, "quantizer": quantizer}}]
    for part in report["artifacts"]:
        part["precision"] = "int8" if part["path"] == "model.onnx" else "other"
    serving(folder, runtime, precision="other", **{"report.json": json.dumps(report)})
    with caplog.at_level("WARNING", logger="slimcv"):
        packed.pack(folder, out=tmp_path / "model.slim")
    found = packed.read_manifest(tmp_path / "model.slim")
    assert (found.serve.runtime, found.serve.precision) == (
        (runtime, "other") if same else ("onnxruntime", "int8")
    )
    said = [record.getMessage() for record in caplog.records]
    assert said == [] if same else f"serves {runtime}:{form}; what is packed is the model.onnx" in said[0]
    if same:
        packed.pack(folder, out=tmp_path / "model.slim", with_samples=True)
        return
    with pytest.raises(SlimcvError, match=r"its model\.onnx is another network"):
        packed.pack(folder, out=tmp_path / "model.slim", with_samples=True)


def test_a_network_in_floats_is_the_same_in_bfloat16(folder, tmp_path, caplog):
    report = json.loads((folder / "report.json").read_text())
    report["steps"] = [{"step": "ship", "details": {"form": "bf16", "quantizer": None}}]
    serving(folder, "eager", precision="bf16", **{"report.json": json.dumps(report)})
    packed.pack(folder, out=tmp_path / "model.slim", with_samples=True)
    assert packed.read_manifest(tmp_path / "model.slim").serve.precision == "fp32"
    assert not caplog.records


def test_a_manifest_with_more_than_this_version_knows_is_of_a_newer_one(slim):
    given = packed.read_manifest(Path(slim))
    values = json.loads(manifest.written(given))
    assert manifest.read(json.dumps(values).encode(), onnx_bytes=1, sha256=bytes(32)) is not None
    values["serve"]["streams"] = 4
    with pytest.raises(SlimcvError, match=r"says 'serve\.streams', which slimcv .* a newer one"):
        manifest.read(json.dumps(values).encode(), onnx_bytes=1, sha256=bytes(32))


def test_a_model_packed_alone_is_fed_pixels_or_refused(folder, tmp_path, pictures):
    slim = packed.pack(folder / "model.onnx", out=tmp_path / "alone.slim").path
    found = slimcv.load(slim, threads=1).predict(pictures / "green" / "0.png")
    assert (found.label, found.indices) == ("1", (1,))
    model = onnx.load(folder / "model.onnx")
    model.graph.input[0].type.tensor_type.elem_type = onnx.TensorProto.FLOAT
    onnx.save(model, tmp_path / "float.onnx")
    slim = packed.pack(tmp_path / "float.onnx").path
    with pytest.raises(SlimcvError, match="normalised"):
        slimcv.load(slim, threads=1)


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
@pytest.mark.parametrize(
    "lie", [{"height": 16_000, "width": 16_000}, {"channels": 1, "mean": [0], "std": [1]}]
)
def test_a_manifest_that_says_another_size_than_the_model_is_fed_is_refused(slim, tmp_path, runtime, lie):
    model, given = packed.read(Path(slim))
    values = json.loads(manifest.written(given))
    values["input"] |= lie
    path = tmp_path / "lying.slim"
    path.write_bytes(packing.packed(memoryview(model), json.dumps(values).encode()).written)
    with pytest.raises(SlimcvError, match=r"lying\.slim: its manifest says pictures of .* fed \[16, 12, 3\]"):
        slimcv.load(path, runtime=runtime, threads=1)


def test_a_damaged_file_and_a_runtime_it_has_not_are_refused(slim, tmp_path):
    with pytest.raises(SlimcvError, match="does not run in eager"):
        slimcv.load(slim, runtime="eager")
    (tmp_path / "cut.slim").write_bytes(open(slim, "rb").read()[:-1])  # noqa: PTH123, SIM115
    with pytest.raises(SlimcvError, match=r"cut\.slim: not a sound packed model"):
        slimcv.load(tmp_path / "cut.slim")


def test_predict_takes_it(call, slim, pictures):
    code, out, _ = call("predict", slim, pictures / "green")
    assert code == 0
    assert {line.split("  ")[1].split(" ")[0] for line in out.splitlines()} == {"green"}


def test_bench_takes_it_and_says_its_size(slim, tmp_path):
    targets = bench.targets(str(slim), tmp_path / "here", runtime="all")
    assert [target.runtime for target in targets] == ["onnxruntime", "openvino"]
    assert targets[0].classes == ("blue", "green", "<red>")
    row = next(iter(bench.compare(targets[:1], threads=[1], batches=[1], quick=True)))
    assert row.problem is None
    assert row.size_bytes == os.path.getsize(slim)  # noqa: PTH202


def test_export_has_it_as_a_layout(folder, tmp_path):
    (path,) = layouts.export(folder, "slim", tmp_path / "out")
    assert path.name == "model.slim"
    assert packed.read(path)[0] == (folder / "model.onnx").read_bytes()


def test_pack_and_unpack_on_the_command_line(call, folder, tmp_path):
    original = tmp_path / "original.pt"
    original.write_bytes(bytes(1_000_000))
    out = tmp_path / "packed.slim"
    code, said, _ = call("pack", folder, "--out", out, "--original", original, "--format", "json")
    found = json.loads(said)
    assert code == 0
    assert found["bytes"] == out.stat().st_size
    assert found["model"]["bytes"] == (folder / "model.onnx").stat().st_size
    assert found["model"]["zipped_bytes"] < found["model"]["bytes"]
    assert (found["original"]["bytes"], found["original"]["zipped_bytes"] < 2000) == (1_000_000, True)
    assert call("unpack", out, "--out", tmp_path / "again.onnx")[0] == 0
    assert (tmp_path / "again.onnx").read_bytes() == (folder / "model.onnx").read_bytes()
    code, said, _ = call("pack", folder, "--strip", "--original", original)
    assert code == 0
    assert "Stripped" in said
    assert "1,000,000" in said
    assert folder.with_name(f"{folder.name}.slim").is_file()


def test_what_cannot_be_packed_or_unpacked_is_a_sentence(call, folder, tmp_path):
    (tmp_path / "text.onnx").write_text("no model")
    for words in (
        ("pack", tmp_path / "absent.onnx"),
        ("pack", tmp_path / "text.onnx"),
        ("pack", tmp_path),
        ("unpack", tmp_path / "absent.slim"),
        ("unpack", tmp_path / "text.onnx", "--out", tmp_path / "new.onnx"),
        ("unpack", folder / "model.onnx"),
    ):
        code, out, err = call(*words)
        assert (code, out) == (2, ""), words
        assert err.startswith("error: "), words
    serving(folder, "openvino")
    manifest = json.loads((folder / "slimcv.json").read_text())
    del manifest["files"]["model.onnx"]
    (folder / "slimcv.json").write_bytes(signed(manifest))
    code, _, err = call("pack", folder)
    assert code == 2
    assert "onnx where --keep is given" in err
    assert not (tmp_path / "new.onnx").exists()
