"""A bundle's file as model servers read it, and alone."""

import dataclasses
import errno
import json
import shutil
from pathlib import Path

import pytest

from slimcv import bundle, runtimes
from slimcv.errors import SlimcvError
from slimcv.manifest import signed
from slimcv.measure import environment
from slimcv.serving import layouts


def test_openvino_model_server_gets_a_versioned_folder_and_its_config(folder, tmp_path):
    layouts.export(folder, "openvino-model-server", tmp_path / "repository", name="colours")
    assert (tmp_path / "repository" / "colours" / "1" / "model.bin").is_file()
    config = json.loads((tmp_path / "repository" / "config.json").read_text())
    (model,) = (entry["config"] for entry in config["model_config_list"])
    # Where the CPU has no bfloat16, the file promises float32 and the server is told.
    promised = {} if environment.has_bf16_instructions() else {"INFERENCE_PRECISION_HINT": "f32"}
    assert model.pop("plugin_config", {}) == promised
    assert model == {"name": "colours", "base_path": "/models/colours"}


def test_triton_gets_its_config_with_the_shapes(folder, tmp_path):
    layouts.export(folder, "triton", tmp_path / "repository")
    place = tmp_path / "repository" / "colours-slim"
    assert (place / "1" / "model.onnx").is_file()
    config = (place / "config.pbtxt").read_text()
    assert 'backend: "onnxruntime"' in config
    assert "data_type: TYPE_UINT8, dims: [ 16, 12, 3 ]" in config
    assert "dims: [ 3 ]" in config


@pytest.mark.parametrize("precision", ["f32", "bf16"])
def test_the_precision_that_the_file_promises_stands_in_the_servers_config(
    folder, tmp_path, variant, precision, caplog
):
    details = {**variant.details, "inference_precision": precision}
    path = runtimes.write(dataclasses.replace(variant, details=details), "openvino", tmp_path)
    keep_only(folder, "openvino/model.xml", served="openvino", content=path.read_bytes())
    layouts.export(folder, "openvino-model-server", tmp_path / "ovms", name="colours")
    (model,) = json.loads((tmp_path / "ovms" / "config.json").read_text())["model_config_list"]
    assert model["config"]["plugin_config"] == {"INFERENCE_PRECISION_HINT": precision}
    layouts.export(folder, "triton", tmp_path / "triton", name="colours")
    config = (tmp_path / "triton" / "colours" / "config.pbtxt").read_text()
    told = 'parameters: { key: "HINT_BF16" value: { string_value: "YES" } }' in config
    warned = "no parameter for f32" in caplog.text
    assert (told, warned) == ((True, False) if precision == "bf16" else (False, True))


@pytest.mark.parametrize(
    ("served", "present"),
    [
        ("inductor", "model.onnx"),
        ("inductor", "openvino/model.xml"),
        ("openvino", "openvino/model.xml"),
        ("onnxruntime", "model.onnx"),
    ],
)
def test_tritons_config_is_that_of_the_file_beside_it_whatever_is_served(folder, tmp_path, served, present):
    """PyTorch's file is fed planes, the exported ones pixels."""
    keep_only(folder, present, served=served)
    layouts.export(folder, "triton", tmp_path / "repository", name="colours")
    config = (tmp_path / "repository" / "colours" / "config.pbtxt").read_text()
    backend = "onnxruntime" if present == "model.onnx" else "openvino"
    assert f'backend: "{backend}"' in config
    assert "data_type: TYPE_UINT8, dims: [ 16, 12, 3 ]" in config
    (model,) = (tmp_path / "repository" / "colours" / "1").glob("model.[ox]*")
    shape, fed = runtimes.fed(model, backend)
    assert (shape[1:], fed) == ((16, 12, 3), "uint8-nhwc")


def test_tritons_config_names_planes_where_the_file_is_fed_planes(folder, tmp_path, variant):
    planes = dataclasses.replace(variant, details={"input_format": runtimes.PLANES})
    path = runtimes.write(planes, "onnxruntime", tmp_path / "planes")
    keep_only(folder, "model.onnx", served="onnxruntime", content=path.read_bytes())
    layouts.export(folder, "triton", tmp_path / "repository", name="colours")
    config = (tmp_path / "repository" / "colours" / "config.pbtxt").read_text()
    assert "data_type: TYPE_FP32, dims: [ 3, 16, 12 ]" in config


def test_the_model_server_gets_the_onnx_file_where_there_is_no_other(folder, tmp_path):
    keep_only(folder, "model.onnx", served="onnxruntime")
    layouts.export(folder, "openvino-model-server", tmp_path / "repository", name="colours")
    version = tmp_path / "repository" / "colours" / "1"
    assert [path.name for path in version.iterdir()] == ["model.onnx"]
    assert (tmp_path / "repository" / "config.json").is_file()


def keep_only(folder, present, *, served, content=None):
    """Leave one exported file, and PyTorch's, in the bundle; `served` is what it says it serves."""
    manifest = json.loads((folder / "slimcv.json").read_text())
    if content is not None:
        (folder / present).write_bytes(content)
        entry = {"bytes": len(content), "sha256": bundle.sha256(folder / present)}
        manifest["files"][present] = entry
    stays = ("model.pt2", present, present.replace(".xml", ".bin"))
    exported = ("model.onnx", "openvino/model.xml", "openvino/model.bin")
    for name in exported:
        if name not in stays:
            del manifest["files"][name]
    manifest["serve"] |= {"runtime": served, "path": bundle.PLACES[served]}
    manifest["input"]["format"] = "uint8-nhwc" if served in ("onnxruntime", "openvino") else "float-nchw"
    (folder / "slimcv.json").write_bytes(signed(manifest))


@pytest.mark.parametrize(
    ("layout", "names"),
    [("onnx", ["model.onnx"]), ("openvino", ["model.bin", "model.xml"]), ("pt2", ["model.pt2"])],
)
def test_one_file_alone(folder, tmp_path, layout, names):
    layouts.export(folder, layout, tmp_path / "alone")
    assert sorted(path.name for path in (tmp_path / "alone").iterdir()) == names


@pytest.mark.parametrize(
    ("layout", "file", "names"),
    [
        ("onnx", "leaves.onnx", ["leaves.onnx"]),
        ("openvino", "leaves.v2.xml", ["leaves.v2.bin", "leaves.v2.xml"]),
        ("pt2", "leaves.pt2", ["leaves.pt2"]),
        ("slim", "leaves.slim", ["leaves.slim"]),
    ],
)
def test_one_file_under_a_name_of_its_own(folder, tmp_path, layout, file, names):
    written = layouts.export(folder, layout, tmp_path / "new" / file)
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == names
    assert sorted(path.name for path in written) == names
    with pytest.raises(SlimcvError, match="exists already"):
        layouts.export(folder, layout, tmp_path / "new" / file)


@pytest.mark.parametrize(
    ("layout", "place"), [("triton", "server"), ("openvino", "one"), ("openvino", "one.xml")]
)
def test_a_disk_that_is_full_leaves_nothing_half_written(folder, tmp_path, monkeypatch, layout, place):
    real = shutil.copyfileobj

    def full(source, target):
        if Path(source.name).suffix == ".bin" or layout == "triton":
            raise OSError(errno.ENOSPC, "No space left on device")
        real(source, target)

    monkeypatch.setattr(shutil, "copyfileobj", full)
    with pytest.raises(SlimcvError, match="No space left"):
        layouts.export(folder, layout, tmp_path / "new" / place)
    assert not [path for path in (tmp_path / "new").rglob("*") if path.is_file()]
    monkeypatch.undo()
    assert layouts.export(folder, layout, tmp_path / "new" / place)


def test_weights_of_another_model_are_not_written_over(folder, tmp_path):
    (tmp_path / "leaves.bin").write_bytes(b"another's")
    with pytest.raises(SlimcvError, match=r"leaves\.bin exists already"):
        layouts.export(folder, "openvino", tmp_path / "leaves.xml")
    assert (tmp_path / "leaves.bin").read_bytes() == b"another's"
    assert not (tmp_path / "leaves.xml").exists()


def test_an_unknown_layout_and_a_folder_in_use_are_refused(folder, tmp_path):
    with pytest.raises(SlimcvError, match="unknown layout") as refused:
        layouts.export(folder, "tritn", tmp_path / "new")
    assert "triton" in refused.value.hint
    with pytest.raises(SlimcvError, match="not empty"):
        layouts.export(folder, "onnx", folder)


def test_a_layout_without_its_file_is_refused(folder, tmp_path):
    manifest = json.loads((folder / "slimcv.json").read_text())
    del manifest["files"]["model.pt2"]
    (folder / "slimcv.json").write_bytes(signed(manifest))
    with pytest.raises(SlimcvError, match=r"has no model\.pt2"):
        layouts.export(folder, "pt2", tmp_path / "alone")
