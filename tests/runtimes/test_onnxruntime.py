"""The ONNX file: one file, clean graph, named dimensions, nothing of the user's machine in it."""

import onnx
import pytest
import torch
from torch import nn

from slimcv.errors import SlimcvError
from slimcv.models import capture
from slimcv.runtimes import onnxruntime as runtime
from slimcv.step import InputSpec, Variant

INPUT = InputSpec(3, 16, 16)


def _variant(net):
    return Variant(capture.capture(net.eval(), INPUT), INPUT)


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(), nn.Flatten(),
        nn.Linear(8 * 256, 4),
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("onnx")
    written = runtime.write(_variant(net), folder, name="net")
    assert [file.name for file in folder.iterdir()] == ["net.onnx"]
    return written


def test_norm_and_dropout_vanish_and_only_layers_are_left(path):
    operators = [node.op_type for node in onnx.load(path).graph.node]
    assert operators == ["Conv", "Relu", "Reshape", "Gemm"]


def test_input_and_output_have_names_and_a_free_batch_dimension(path):
    graph = onnx.load(path).graph
    (inputs,), (outputs,) = graph.input, graph.output
    assert (inputs.name, outputs.name) == ("input", "logits")
    assert inputs.type.tensor_type.shape.dim[0].dim_param == "batch"
    assert outputs.type.tensor_type.shape.dim[0].dim_param == "batch"


def test_no_path_of_the_users_code_is_in_the_file(path):
    assert b".py" not in path.read_bytes()


def test_the_same_model_gives_the_same_bytes(path, tmp_path):
    torch.manual_seed(3)
    variant = _variant(
        nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
    )
    first = runtime.write(variant, tmp_path, name="first").read_bytes()
    assert runtime.write(variant, tmp_path, name="second").read_bytes() == first


def test_the_precision_of_the_variant_is_kept_in_the_file(path):
    assert runtime.prepare(path, threads=1).precision == "fp32"


def test_a_folder_that_cannot_be_written_is_an_error_that_names_the_file(tmp_path):
    variant = _variant(
        nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
    )
    (tmp_path / "model.onnx").mkdir()
    with pytest.raises(SlimcvError, match=r"model\.onnx"):
        runtime.write(variant, tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["model.onnx"]


def test_the_variant_is_left_in_the_mode_it_was_in(tmp_path):
    variant = _variant(nn.Sequential(nn.Conv2d(3, 4, 3), nn.Dropout(), nn.Flatten(), nn.Linear(4 * 196, 2)))
    capture.set_training(variant.model, True)
    runtime.write(variant, tmp_path)
    assert all(part.training for part in variant.model.modules())
