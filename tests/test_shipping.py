"""What of all files is shipped."""

from slimcv.shipping.placing import one_a_runtime


def test_the_best_is_shipped_and_the_variants_own_graph_for_every_other_runtime():
    names = ["onnxruntime", "openvino", "openvino:nncf", "onnxruntime:qdq"]
    assert one_a_runtime(names, "openvino") == ["openvino", "onnxruntime"]
    assert one_a_runtime(names, "openvino:nncf") == ["openvino:nncf", "onnxruntime"]
    assert one_a_runtime(["openvino:nncf"], "openvino:nncf") == ["openvino:nncf"]
