"""Tensors are found in the bytes of an ONNX file where the library puts them."""

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from slimcv.packed import wire
from slimcv.packed.wire import NotOnnx

from .conftest import with_tensors


def spans(content):
    return wire.spans(memoryview(content))


def test_the_elements_of_every_tensor_are_found(model):
    content = model.read_bytes()
    initializers = onnx.load(model).graph.initializer
    found = spans(content)
    assert [content[each.start : each.start + each.length] for each in found] == [
        tensor.raw_data for tensor in initializers
    ]
    assert [each.width for each in found] == [numpy_helper.to_array(each).itemsize for each in initializers]


def nested():
    """Tensors in an initialiser, a constant, a branch of a condition and a function."""
    number = iter(range(10))

    def tensor():
        return numpy_helper.from_array(np.full(3, next(number), np.int16), "t")

    constant = helper.make_node("Constant", [], ["c"], value=tensor())
    branch = helper.make_graph([constant], "branch", [], [], [tensor()])
    condition = helper.make_node("If", ["x"], ["y"], then_branch=branch, else_branch=branch)
    graph = helper.make_graph([constant, condition], "g", [], [], [tensor()])
    sparse = helper.make_sparse_tensor(tensor(), tensor(), [10])
    graph.sparse_initializer.append(sparse)
    function = helper.make_function("d", "f", [], ["c"], [constant], [helper.make_opsetid("", 20)])
    return helper.make_model(graph, functions=[function]).SerializeToString()


def test_tensors_within_nodes_branches_and_functions_are_found():
    content = nested()
    values = [content[each.start] for each in spans(content)]
    assert sorted(values) == [0, 0, 0, 0, 1, 1, 2, 3, 4]
    assert {each.length for each in spans(content)} == {6}


def test_packed_floats_are_found_and_spread_out_integers_are_not():
    tensors = [
        helper.make_tensor("f", TensorProto.FLOAT, [2], [1.0, 2.0]),
        helper.make_tensor("d", TensorProto.DOUBLE, [2], [1.0, 2.0]),
        helper.make_tensor("i", TensorProto.INT8, [2], [1, 2]),
    ]
    content = helper.make_model(helper.make_graph([], "g", [], [], tensors)).SerializeToString()
    assert [(each.length, each.width) for each in spans(content)] == [(8, 4), (16, 8)]


def external(tensor):
    tensor.ClearField("raw_data")
    tensor.external_data.add(key="location", value="../../etc/passwd")


def elsewhere(tensor):
    tensor.data_location = TensorProto.EXTERNAL


@pytest.mark.parametrize("change", [external, elsewhere])
def test_tensors_in_other_files_are_refused_wherever_they_stand(change):
    tensor = numpy_helper.from_array(np.zeros(3, np.float32), "t")
    change(tensor)
    constant = helper.make_node("Constant", [], ["c"], value=tensor)
    for graph in (
        helper.make_graph([], "g", [], [], [tensor]),
        helper.make_graph([constant], "g", [], []),
        helper.make_graph([helper.make_node("If", ["x"], ["y"], then_branch=helper.make_graph(
            [constant], "b", [], []))], "g", [], []),
    ):  # fmt: skip
        with pytest.raises(NotOnnx, match="other files"):
            spans(helper.make_model(graph).SerializeToString())


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x08\x0a",
        b"PK\x03\x04 a zip",
        b"\x3a\xff\xff\xff\xff\x0f",
        b"\x3a\x02\x0b\x0c",
        b"\x00\x00",
        b"\x3a" + b"\xff" * 11,
    ],
    ids=["empty", "no graph", "zip", "length", "group", "field 0", "endless"],
)
def test_what_is_no_onnx_model_is_refused(content):
    with pytest.raises(NotOnnx):
        spans(content)


def test_graphs_within_graphs_without_end_are_refused():
    content = b""
    for _ in range(60):
        node = b"\x2a" + length(b"\x32" + length(content))
        content = b"\x0a" + length(node)
    with pytest.raises(NotOnnx, match="deep"):
        spans(b"\x3a" + length(content))


def length(content):
    from slimcv.packed.varints import varint

    return varint(len(content)) + content


@settings(deadline=None)
@given(st.data())
def test_a_model_with_any_byte_changed_is_read_or_refused(data):
    content = bytearray(with_tensors((TensorProto.FLOAT, np.zeros(3, np.float32))))
    content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    try:
        found = spans(bytes(content))
    except NotOnnx:
        return
    assert all(each.start >= 0 and each.start + each.length <= len(content) for each in found)


def test_a_model_of_fields_without_number_is_refused(monkeypatch):
    monkeypatch.setattr(wire, "MOST_FIELDS", 1000)
    with pytest.raises(NotOnnx, match="more than 1,000 fields"):
        spans(b"\x3a" + length(b"\x0a\x00" * 1000))
