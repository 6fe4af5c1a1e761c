"""The main job from Python."""

import inspect
import re
import zlib
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from typer.main import get_command

import slimcv
from slimcv import bundle, packed, predictions
from slimcv.cli import app
from slimcv.errors import SlimcvError
from slimcv.optimization import default_folder
from slimcv.serving.verification import Limits, verify


@pytest.fixture
def recipe(tmp_path):
    (tmp_path / "export.yaml").write_text("steps: [export_onnx]")
    return str(tmp_path / "export.yaml")


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))


def test_a_network_in_memory_becomes_a_bundle_and_stays_as_it_was(recipe, tmp_path):
    net = network().train()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    result = slimcv.optimize(
        net,
        recipe=recipe,
        input="3x16x16",
        out=tmp_path / "out",
        threads=1,
        classes=("cat", "dog"),
        quick=True,
    )
    assert net.training
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert result.gate_met
    assert result.report["model"]["source"] == "Sequential"
    assert result.report["optimized"]["top1"] is None
    picture = np.zeros((20, 20, 3), np.uint8)
    assert result.load(threads=1).predict(picture).label in ("cat", "dog")
    assert bundle.read(result.folder).golden is not None


def test_a_file_gets_its_folder_by_its_name_and_the_same_call_repeats_the_report(
    recipe, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    torch.save(network(), "net.pt")
    first = slimcv.optimize("net.pt", recipe=recipe, input="3x16x16", threads=1, license="mit", quick=True)
    assert first.folder.name == "net-slim"
    assert bundle.read(first.folder).license == "mit"
    again = slimcv.optimize("net.pt", recipe=recipe, input="3x16x16", threads=1, license="mit", quick=True)
    assert again.report["optimized"] == first.report["optimized"]
    assert again.speedup == first.speedup
    assert not (first.folder / "checkpoints").exists(), "a finished run reads them no more"
    assert first.report["packing"]["packed_bytes"] > 0, "though the recipe is not for size"
    assert again.report["packing"] == first.report["packing"]
    with pytest.raises(SlimcvError, match="another run \\(another measurement\\)") as caught:
        slimcv.optimize("net.pt", recipe=recipe, input="3x16x16", threads=1, license="mit")
    assert "overwrite" in caught.value.hint, "what was measured quickly is not told as a full result"


def test_a_recipe_for_size_says_what_original_and_result_take_zipped_and_packed(tmp_path):
    (tmp_path / "small.yaml").write_text("objective: size\nsteps: [quantize_weights, export_onnx]")
    net = nn.Sequential(nn.Conv2d(3, 64, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 40))
    torch.save(net, tmp_path / "net.pt")
    given = {"recipe": str(tmp_path / "small.yaml"), "input": "3x16x16", "threads": 1, "quick": True}
    result = slimcv.optimize(str(tmp_path / "net.pt"), out=tmp_path / "out", **given)
    sizes = result.report["packing"]
    content = (tmp_path / "net.pt").read_bytes()
    assert sizes["original"]["bytes"] == len(content)
    assert sizes["original"]["zipped_bytes"] == len(zlib.compress(content, 9)) - 6
    made = packed.pack(tmp_path / "out" / "model.onnx", out=tmp_path / "model.slim")
    assert sizes["onnx"]["bytes"] == made.model.bytes
    assert sizes["onnx"]["zipped_bytes"] == made.model.zipped_bytes
    assert sizes["packed_bytes"] == made.bytes < made.model.bytes


def test_a_network_in_memory_keeps_its_sizes_when_its_original_is_gone(tmp_path):
    (tmp_path / "small.yaml").write_text("objective: size\nsteps: [quantize_weights, export_onnx]")
    given = {"recipe": str(tmp_path / "small.yaml"), "input": "3x16x16", "threads": 1, "quick": True}
    first, again = (slimcv.optimize(network(), out=tmp_path / "out", **given) for _ in range(2))
    assert not (first.folder / "checkpoints").exists()
    assert again.report["packing"] == first.report["packing"]
    assert first.report["packing"]["original"]["bytes"] > 0


def test_without_an_onnx_file_the_report_says_that_nothing_was_packed(tmp_path):
    (tmp_path / "plain.yaml").write_text("steps: [fuse_conv_bn]")
    given = {"recipe": str(tmp_path / "plain.yaml"), "input": "3x16x16", "threads": 1, "quick": True}
    result = slimcv.optimize(network(), out=tmp_path / "out", **given)
    assert (result.report["packing"], result.report["not_packed"]) == (None, "there is no model.onnx")


def test_what_is_kept_can_be_fewer_files_later_and_the_manifest_is_taken_away_first(recipe, tmp_path):
    torch.save(network(), tmp_path / "net.pt")
    out = tmp_path / "out"
    call = {"recipe": recipe, "input": "3x16x16", "out": out, "threads": 1, "quick": True}
    slimcv.optimize(tmp_path / "net.pt", keep=["pt2", "checkpoints"], **call)
    assert "model.pt2" in bundle.read(out).files
    assert (out / "checkpoints" / "000-original.pt2").is_file()
    (out / "report.md").unlink()
    (out / "report.md").mkdir()
    with pytest.raises(SlimcvError, match=r"report\.md"):
        slimcv.optimize(tmp_path / "net.pt", keep=["onnx"], **call)
    assert not (out / "model.pt2").exists()
    assert not (out / bundle.MANIFEST).exists(), "what is half written is no bundle"
    (out / "report.md").rmdir()
    slimcv.optimize(tmp_path / "net.pt", **call)
    listed = bundle.read(out).files
    assert "model.onnx" in listed
    assert "model.pt2" not in listed, "what an earlier call left away is not there to be listed"


def test_what_the_command_line_takes_python_takes_too(recipe, tmp_path):
    result = slimcv.optimize(
        network(),
        recipe=recipe,
        input="3x16x16",
        out=tmp_path / "out",
        threads=1,
        quick=True,
        input_format="float-nchw",
        junit=tmp_path / "gate.xml",
    )
    assert bundle.read(result.folder).input.format == "float-nchw"
    suite = ElementTree.parse(tmp_path / "gate.xml").getroot()
    assert suite.get("failures") == "0"


def test_what_the_command_line_takes_the_function_takes_by_the_same_names():
    options = get_command(app).commands["optimize"].params
    named = {option.opts[0].removeprefix("--").replace("-", "_").lower() for option in options}
    taken = set(inspect.signature(slimcv.optimize).parameters)
    assert named - taken == {"set", "dry_run", "format"}
    assert "overrides" in taken, "which --set is called"


def test_what_was_asked_for_beyond_the_recipe_reaches_the_run(recipe, tmp_path, write_noise):
    write_noise(tmp_path, size=16, each=10)
    result = slimcv.optimize(
        network(),
        recipe=recipe,
        data=tmp_path / "pictures",
        input="3x16x16",
        out=tmp_path / "out",
        threads=1,
        quick=True,
        max_drop=100,
        strict=True,
        min_speedup=1e-3,
        cache=tmp_path / "kept",
        cache_limit="1GB",
        zip=True,
    )
    gate = result.report["gate"]
    assert (gate["max_drop"], gate["min_speedup"], gate["confidence"]) == (100, 1e-3, 0.95)
    assert [bound["name"] for bound in gate["bounds"]] == ["max_drop", "min_speedup"]
    assert (tmp_path / "out.zip").is_file()
    assert any((tmp_path / "kept").iterdir())


def test_what_cannot_be_done_is_an_error_in_the_junit_file(tmp_path):
    written = tmp_path / "gate.xml"
    with pytest.raises(SlimcvError, match="cache_limit much"):
        slimcv.optimize(tmp_path / "m.pt", out=tmp_path / "out", cache_limit="much", junit=written)
    (error,) = ElementTree.parse(written).getroot().iter("error")
    assert "cache_limit much" in error.get("message")
    with pytest.raises(SlimcvError, match="memory"):
        slimcv.optimize(tmp_path / "m.pt", out=tmp_path / "out", memory="much")


def test_what_is_missing_is_said(recipe, tmp_path):
    with pytest.raises(SlimcvError, match="no name to call a folder by"):
        slimcv.optimize(network(), recipe=recipe, input="3x16x16")
    with pytest.raises(SlimcvError, match="budget soon"):
        slimcv.optimize(network(), recipe=recipe, input="3x16x16", out=tmp_path / "out", budget="soon")
    refused = {"recipe": recipe, "input": "3x16x16", "out": tmp_path / "out"}
    with pytest.raises(SlimcvError, match="no file 'onxx'") as keep:
        slimcv.optimize(network(), keep=["onxx"], **refused)
    assert "onnx" in keep.value.hint
    with pytest.raises(SlimcvError, match="takes 'target_isa'"):
        slimcv.optimize(network(), target_isa="avx2", **refused)
    with pytest.raises(SlimcvError, match="input_format"):
        slimcv.optimize(network(), input_format="uint8", **refused)
    with pytest.raises(SlimcvError, match="cpu_fats"):
        slimcv.optimize(network(), recipe="cpu_fats", out=tmp_path / "out")


def test_a_run_with_pictures_keeps_what_its_page_shows(recipe, tmp_path):
    random = np.random.default_rng(0)
    for split, count in (("train", 8), ("val", 5)):
        for name in ("cat", "dog"):
            (tmp_path / "pictures" / split / name).mkdir(parents=True)
            for number in range(count):
                pixels = random.integers(0, 255, (16, 16, 3), np.uint8)
                Image.fromarray(pixels).save(tmp_path / "pictures" / split / name / f"{number}.png")
    call = {"recipe": recipe, "input": "3x16x16", "out": tmp_path / "out", "threads": 1, "quick": True}
    result = slimcv.optimize(network(), data=tmp_path / "pictures", **call)
    said = predictions.read(result.folder)
    assert said["classes"] == ["cat", "dog"]
    right = np.equal(said["optimized"], said["labels"])
    assert 100 * right.mean() == pytest.approx(result.report["optimized"]["top1"])
    shipped = result.report["steps"][-1]["details"]
    assert sum(layer["macs"] for layer in shipped["layers"]["original"]) == result.report["original"]["macs"]
    assert len(shipped["samples_ms"]["onnxruntime"]) == result.report["optimized"]["latency_ms"]["n"]
    bounds = shipped["intervals"]["latency_p50"]
    assert bounds["low"] <= bounds["value"] <= bounds["high"]
    assert bounds["value"] == pytest.approx(result.speedup)
    assert {"predictions.json", "report.html"} <= bundle.read(result.folder).files.keys()
    page = (result.folder / "report.html").read_text("utf-8")
    assert {"classes", "layers", "latency", "size"} <= set(re.findall(r'<section id="([\w-]+)"', page))
    slimcv.optimize(network(), data=tmp_path / "pictures", **call)
    assert predictions.read(result.folder) == said, "a run that is finished again has them no more to measure"
    _require_every_bit_guarded(result.folder)


def _require_every_bit_guarded(folder):
    """Of all files that a run leaves, its own journal alone is no part of the bundle."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    for path in files:
        content = path.read_bytes()
        changed = bytearray(content)
        changed[len(changed) // 2] ^= 1
        path.write_bytes(changed)
        assert verify(folder, Limits()).damaged is (path.name != "journal.jsonl"), path
        path.write_bytes(content)
    assert len(files) > 8


def test_results_go_beside_a_file_and_into_the_working_directory_for_a_name(tmp_path):
    (tmp_path / "run:3").mkdir()
    model = tmp_path / "run:3" / "net.v2.pt"
    model.touch()
    assert default_folder(str(model), "slim") == tmp_path / "run:3" / "net.v2-slim"
    names = ("timm:resnet50.a1_in1k", "timm:resnet50.a2_in1k", "torchvision:resnet18?num_classes=6")
    assert [str(default_folder(name, "slim")) for name in names] == [
        "timm-resnet50.a1_in1k-slim", "timm-resnet50.a2_in1k-slim", "torchvision-resnet18-num_classes-6-slim",
    ]  # fmt: skip
