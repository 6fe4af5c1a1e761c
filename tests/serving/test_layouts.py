"""A bundle's file as model servers read it, and alone."""

import json

import pytest

from slimcv.errors import SlimcvError
from slimcv.serving import layouts


def test_openvino_model_server_gets_a_versioned_folder_and_its_config(folder, tmp_path):
    layouts.export(folder, "openvino-model-server", tmp_path / "repository", name="colours")
    assert (tmp_path / "repository" / "colours" / "1" / "model.bin").is_file()
    config = json.loads((tmp_path / "repository" / "config.json").read_text())
    assert config["model_config_list"][0]["config"] == {"name": "colours", "base_path": "/models/colours"}


def test_triton_gets_its_config_with_the_shapes(folder, tmp_path):
    layouts.export(folder, "triton", tmp_path / "repository")
    place = tmp_path / "repository" / "colours-slim"
    assert (place / "1" / "model.onnx").is_file()
    config = (place / "config.pbtxt").read_text()
    assert 'backend: "onnxruntime"' in config
    assert "data_type: TYPE_UINT8, dims: [ 16, 12, 3 ]" in config
    assert "dims: [ 3 ]" in config


@pytest.mark.parametrize(
    ("layout", "names"),
    [("onnx", ["model.onnx"]), ("openvino", ["model.bin", "model.xml"]), ("pt2", ["model.pt2"])],
)
def test_one_file_alone(folder, tmp_path, layout, names):
    layouts.export(folder, layout, tmp_path / "alone")
    assert sorted(path.name for path in (tmp_path / "alone").iterdir()) == names


def test_an_unknown_layout_and_a_folder_in_use_are_refused(folder, tmp_path):
    with pytest.raises(SlimcvError, match="unknown layout") as refused:
        layouts.export(folder, "tritn", tmp_path / "new")
    assert "triton" in refused.value.hint
    with pytest.raises(SlimcvError, match="not empty"):
        layouts.export(folder, "onnx", folder)


def test_a_layout_without_its_file_is_refused(folder, tmp_path):
    manifest = json.loads((folder / "slimcv.json").read_text())
    del manifest["files"]["model.pt2"]
    (folder / "slimcv.json").write_text(json.dumps(manifest))
    with pytest.raises(SlimcvError, match=r"has no model\.pt2"):
        layouts.export(folder, "pt2", tmp_path / "alone")
