"""Packed files on the disk: whole or not there, with honest figures, and stripped where that is asked for."""

import zlib

import numpy as np
import onnx
import onnxruntime
import pytest

from slimcv import packed
from slimcv.errors import SlimcvError
from slimcv.packed import sizes, stripping
from slimcv.report.packed import render_packed


def test_a_model_comes_back_byte_for_byte(model, tmp_path):
    found = packed.pack(model, out=tmp_path / "model.slim")
    assert packed.unpack(tmp_path / "model.slim") == tmp_path / "model.onnx"
    assert (tmp_path / "model.onnx").read_bytes() == model.read_bytes()
    assert packed.read(tmp_path / "model.slim") == (model.read_bytes(), None)
    assert found.bytes == (tmp_path / "model.slim").stat().st_size
    assert found.graph_bytes + found.manifest_bytes + found.tensor_bytes < found.bytes
    assert found.model.zipped_bytes == len(zlib.compress(model.read_bytes(), 9)) - 6
    assert sum(found.ways.values()) > 5


def test_a_large_file_is_zipped_in_pieces_and_that_is_said(tmp_path, caplog):
    path = tmp_path / "large.pt"
    with path.open("wb") as stream:
        stream.truncate(sizes.TOLD_BYTES + 1)
    with caplog.at_level("INFO", logger="slimcv"):
        found = packed.sizes_of(path)
    assert found.bytes == sizes.TOLD_BYTES + 1
    assert 0 < found.zipped_bytes < 1e6
    assert [record.message for record in caplog.records] == ["zipping large.pt, 34 MB, to compare its size"]


def test_sizes_are_compared_where_that_takes_seconds_or_it_is_said_why_not(float_model, tmp_path):
    original = tmp_path / "original.pt"
    original.write_bytes(bytes(1000))
    found = packed.compared(float_model, original=original, short=True)
    assert found.original.bytes == 1000
    assert found.packed_bytes < found.onnx.bytes
    assert packed.compared(tmp_path / "model.onnx", original=original) == "there is no model.onnx"
    large = tmp_path / "large.onnx"
    with large.open("wb") as stream:
        stream.truncate(47_000_000)
    said = packed.compared(large, original=original, short=True)
    assert said.startswith("for the 47 MB of large.onnx that takes more than a few seconds; slimcv pack")


def test_a_damaged_file_leaves_nothing_behind(float_model, tmp_path):
    path = tmp_path / "model.slim"
    packed.pack(float_model, out=path)
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(SlimcvError, match=r"model\.slim: not a sound packed model"):
        packed.unpack(path)
    assert [each.name for each in tmp_path.iterdir()] == ["model.slim"]


def test_neither_takes_the_place_of_what_it_is_made_of(float_model, tmp_path):
    with pytest.raises(SlimcvError, match="the model itself"):
        packed.pack(float_model, out=float_model)
    path = tmp_path / "model.onnx"
    packed.pack(float_model, out=path)
    with pytest.raises(SlimcvError, match="packed model itself"):
        packed.unpack(path)


def test_a_model_that_is_not_there_or_empty_is_named(tmp_path):
    path, there = tmp_path / "model.onnx", tmp_path / "model.slim"
    there.write_bytes(b"")
    with pytest.raises(SlimcvError, match=r"model\.onnx"):
        packed.pack(path)
    path.write_bytes(b"")
    with pytest.raises(SlimcvError, match=r"model\.onnx: .* it is empty"):
        packed.pack(path)


def outputs(model, batch):
    return onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"]).run(
        None, {"input": batch}
    )[0]


def test_a_stripped_model_gives_the_same_outputs_in_fewer_bytes(model, tmp_path):
    found = packed.pack(model, out=tmp_path / "model.slim", strip=True)
    whole = packed.pack(model, out=tmp_path / "whole.slim")
    content, _ = packed.read(tmp_path / "model.slim")
    assert found.bytes < whole.bytes
    assert found.stripped_bytes == len(content) < found.model.bytes
    batch = np.random.default_rng(0).integers(0, 256, (4, 16, 16, 3), dtype=np.uint8)
    assert (outputs(content, batch) == outputs(model.read_bytes(), batch)).all()
    stripped, before = onnx.load_model_from_string(content), onnx.load(model)
    onnx.checker.check_model(stripped, full_check=True)
    assert [each.name for each in stripped.graph.output] == ["logits"]
    assert stripped.metadata_props == before.metadata_props
    assert not any(node.name for node in stripped.graph.node)


def test_names_that_a_branch_reads_are_kept():
    branch = onnx.helper.make_graph(
        [onnx.helper.make_node("Identity", ["outer"], ["inner"], name="n")],
        "b",
        [],
        [onnx.helper.make_tensor_value_info("inner", 1, [1])],
    )
    nodes = [
        onnx.helper.make_node("Relu", ["x"], ["outer"], name="first"),
        onnx.helper.make_node("If", ["condition"], ["y"], then_branch=branch, else_branch=branch),
    ]
    inputs = [
        onnx.helper.make_tensor_value_info("x", 1, [1]),
        onnx.helper.make_tensor_value_info("condition", 9, []),
    ]
    graph = onnx.helper.make_graph(nodes, "g", inputs, [onnx.helper.make_tensor_value_info("y", 1, [1])])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 20)], ir_version=10)
    found = onnx.load_model_from_string(stripping.stripped(model.SerializeToString()))
    onnx.checker.check_model(found)
    assert found.graph.node[0].output == ["outer"]
    assert found.graph.node[0].name == ""
    assert found.graph.node[1].attribute[0].g.node[0].name == ""


def test_the_figures_are_drawn(float_model, tmp_path):
    original = tmp_path / "original.pt"
    original.write_bytes(bytes(10_000_000))
    document = packed.pack(float_model, out=tmp_path / "model.slim", original=original).as_json()
    text = render_packed(document, "text")
    assert "10,000,000" in text
    assert f"{10_000_000 / document['bytes']:,.0f}×" in text
    assert "| original | 10,000,000 |" in render_packed(document, "markdown")
