"""The ONNX file: one file, clean graph, named dimensions, nothing of the user's machine in it."""

import numpy as np
import onnx
import pytest
import torch
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, quantize_static
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


@pytest.mark.parametrize("form", ["QDQ", "QOperator"])
@pytest.mark.parametrize("in_memory", [False, True])
def test_a_foreign_file_on_integers_is_told_by_its_operators(path, tmp_path, form, in_memory):
    plain = onnx.load(path)
    del plain.metadata_props[:]
    foreign, pictures = tmp_path / "foreign.onnx", [{"input": np.ones((1, 3, 16, 16), np.float32)}]
    onnx.save(plain, foreign)
    assert runtime.prepare(foreign, threads=1).precision == "fp32"
    quantize_static(foreign, tmp_path / "int8.onnx", Once(pictures), quant_format=QuantFormat[form])
    file = tmp_path / "int8.onnx"
    assert runtime.prepare(file.read_bytes() if in_memory else file, threads=1).precision == "int8"


def test_an_operator_is_found_where_two_pieces_of_the_file_meet(path, tmp_path, monkeypatch):
    plain = onnx.load(path)
    del plain.metadata_props[:]
    foreign = tmp_path / "foreign.onnx"
    onnx.save(plain, foreign)
    quantize_static(foreign, tmp_path / "int8.onnx", Once([{"input": np.ones((1, 3, 16, 16), np.float32)}]))
    content = (tmp_path / "int8.onnx").read_bytes()
    for length in (5, 17, len(content) // 2):
        monkeypatch.setattr(runtime, "_CHUNK_BYTES", length)
        assert runtime.prepare(content, threads=1).precision == "int8"


class Once(CalibrationDataReader):
    """Batches, one after the other."""

    def __init__(self, batches):
        self._left = iter(batches)

    def get_next(self):
        return next(self._left, None)


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
