"""The manifest of a packed file is that of one ONNX file in a known place, or the file is refused."""

import json

import numpy as np
import onnx
import pytest

from slimcv import packed
from slimcv.errors import SlimcvError
from slimcv.packed import packing

MANIFEST = {
    "schema_version": 1,
    "slimcv": "0.1.0",
    "created": "2026-01-01T00:00:00+00:00",
    "serve": {"path": "model.onnx", "runtime": "onnxruntime", "precision": "fp32", "threads": 1},
    "input": {"channels": 3, "height": 4, "width": 4, "mean": [0, 0, 0], "std": [1, 1, 1]},
    "classes": ["a", "b"],
    "files": {},
    "environment": {},
    "threads": 1,
    "seed": 0,
    "recipe": {"name": "mine"},
}


def model():
    tensor = onnx.numpy_helper.from_array(np.arange(64, dtype=np.float32), "w")
    output = onnx.helper.make_tensor_value_info("w", 1, [64])
    graph = onnx.helper.make_graph([], "g", [], [output], [tensor])
    return onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 20)]).SerializeToString()


def written(path, manifest):
    path.write_bytes(packing.packed(memoryview(model()), json.dumps(manifest).encode()).written)
    return path


def with_serve(**changes):
    return MANIFEST | {"serve": MANIFEST["serve"] | changes}


def with_input(**changes):
    return MANIFEST | {"input": MANIFEST["input"] | changes}


def test_a_sound_manifest_lists_the_one_file_with_its_hash(tmp_path):
    found = packed.read_manifest(written(tmp_path / "model.slim", MANIFEST))
    assert found.serve.path == "model.onnx"
    assert {name: entry.bytes for name, entry in found.files.items()} == {"model.onnx": len(model())}
    assert packed.read(tmp_path / "model.slim")[0] == model()


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        (with_serve(path="../x"), "names another file or runtime"),
        (with_serve(path="/etc/passwd"), "names another file or runtime"),
        (with_serve(path="model.pt2"), "names another file or runtime"),
        (with_serve(runtime="eager"), "names another file or runtime"),
        (with_serve(runtime="inductor"), "names another file or runtime"),
        (MANIFEST | {"files": {"../x": {"bytes": 1, "sha256": "0" * 64}}}, "leaves the folder"),
        (MANIFEST | {"threads": 0}, "threads"),
        (with_input(height=100_000, width=100_000), "input.height"),
        (with_input(channels=1 << 20), "input.channels"),
        (with_input(mean=[0, 0]), "mean and std are not 3 numbers"),
        (with_input(std=[]), "mean and std are not 3 numbers"),
        ({"schema_version": 1}, "Field required"),
        ([], "the manifest"),
    ],
)
def test_a_manifest_of_another_file_or_runtime_is_refused_with_the_file_named(changed, said, tmp_path):
    path = written(tmp_path / "model.slim", changed)
    with pytest.raises(SlimcvError, match=r"model\.slim: ") as refused:
        packed.read_manifest(path)
    assert said in refused.value.message
    with pytest.raises(SlimcvError, match=r"model\.slim: "):
        packed.read(path)
