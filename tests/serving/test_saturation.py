"""A bundle with weights of eight bits, verified where sums of 8-bit products saturate.

OpenVINO's kernels are held to AVX2 by oneDNN's own variable, so that a CPU with dot products saturates as
one without them does. What is expected comes from an evaluation in floats, which cannot.
"""

import dataclasses
import json
import os
import subprocess
import sys

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from slimcv import bundle, report, runtimes
from slimcv.measure import environment
from slimcv.results import Latency, Measurement
from slimcv.runtimes.openvino import import_library
from slimcv.serving.golden import Golden
from slimcv.step import InputSpec, Variant

INPUT = InputSpec(3, 16, 12)
CHANNELS, CLASSES = 16, 3


def graph(largest):
    """Two convolutions on bytes; the first one's weights are near `largest`, as the pictures are near 255."""
    random = np.random.default_rng(0)
    first = random.integers(largest - 27, largest + 1, (CHANNELS, 3, 3, 3)).astype(np.int8)
    second = random.integers(-largest, largest + 1, (CLASSES, CHANNELS, 1, 1)).astype(np.int8)
    constants = {
        "whole": np.float32(255),
        "step": np.float32(1 / 255),
        "zero": np.uint8(0),
        "first": first,
        "second": second,
        "weight_step": np.float32(1 / largest),
        "weight_zero": np.int8(0),
        "inner_step": np.float32(27 / 255),
    }
    nodes = [
        helper.make_node("Cast", ["input"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Div", ["float", "whole"], ["shares"]),
        helper.make_node("Transpose", ["shares"], ["planes"], perm=[0, 3, 1, 2]),
        helper.make_node("QuantizeLinear", ["planes", "step", "zero"], ["bytes"]),
        helper.make_node("DequantizeLinear", ["bytes", "step", "zero"], ["read"]),
        helper.make_node("DequantizeLinear", ["first", "weight_step", "weight_zero"], ["first_weight"]),
        helper.make_node("Conv", ["read", "first_weight"], ["maps"], pads=[1, 1, 1, 1]),
        helper.make_node("QuantizeLinear", ["maps", "inner_step", "zero"], ["map_bytes"]),
        helper.make_node("DequantizeLinear", ["map_bytes", "inner_step", "zero"], ["maps_read"]),
        helper.make_node("DequantizeLinear", ["second", "weight_step", "weight_zero"], ["second_weight"]),
        helper.make_node("Conv", ["maps_read", "second_weight"], ["answers"]),
        helper.make_node("GlobalAveragePool", ["answers"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["logits"]),
    ]
    made = helper.make_graph(
        nodes,
        "saturating",
        [helper.make_tensor_value_info("input", TensorProto.UINT8, ["batch", 16, 12, 3])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", CLASSES])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    onnx.checker.check_model(model)
    return model


def made_with_dot_products(folder, model, *, moved=0.0):
    """The bundle of such a graph as a CPU with AVX512-VNNI leaves it; rounding `moved` its outputs so far."""
    openvino = import_library()
    (folder / "exported").mkdir(parents=True)
    path = folder / "exported" / "model.xml"
    openvino.save_model(
        openvino.Core().read_model(model.SerializeToString()), os.fspath(path), compress_to_fp16=False
    )
    out = folder / "out"
    artifacts = bundle.place(out, path, "openvino", precision="int8", latency_ms=1.0)
    measured = Measurement(
        10, 0, 100, latency_ms=Latency(1.0, 1.1, None, 20, 0.01), threads=1, runtime="openvino"
    )
    here = environment.describe().as_json()
    document = report.build(
        model={"source": "m.pt"},
        recipe={"name": "cpu_int8", "text": ""},
        environment={**here, "isa": [*here["isa"], "avx512_vnni"]},
        gate={"max_drop": 1.0, "met": True},
        original=measured,
        optimized=dataclasses.replace(measured, precision="int8"),
        records=[],
        artifacts=artifacts,
        seconds=1.0,
    )
    pixels = np.random.default_rng(1).integers(200, 256, (16, 16, 12, 3), dtype=np.uint8)
    (expected,) = ReferenceEvaluator(model).run(None, {"input": pixels})
    # The bundle reads no graph: the file is already exported.
    variant = Variant(model=None, input=INPUT, details={"input_format": runtimes.PIXELS})  # type: ignore[arg-type]
    bundle.write(
        out, document, variant, serve="openvino", golden=Golden(pixels, expected), moved_by_rounding=moved
    )
    return out


@pytest.mark.parametrize(
    ("largest", "moved", "code"), [(127, 0.0, 3), (63, 0.0, 0), (127, 10.0, 3), (63, 10.0, 0)]
)
def test_weights_of_eight_bits_fail_where_sums_saturate_and_of_seven_do_not(tmp_path, largest, moved, code):
    """However wide the bound of a network that amplifies rounding is."""
    out = made_with_dot_products(tmp_path, graph(largest), moved=moved)
    done = subprocess.run(
        [sys.executable, "-m", "slimcv", "verify", out, "--format", "json"],
        capture_output=True,
        text=True,
        env={**os.environ, "ONEDNN_MAX_CPU_ISA": "AVX2", "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == code, done.stderr
    checks = {check["name"]: check for check in json.loads(done.stdout)["checks"]}
    assert "avx512_vnni" in checks["instruction sets"]["detail"]
    assert "ONEDNN_MAX_CPU_ISA=AVX2" in checks["instruction sets"]["detail"]
    assert "8-bit dot products" in checks["int8"]["detail"]
    golden = checks["golden samples"]
    assert golden["outcome"] == ("failed" if code else "passed")
    assert ("saturate: slimcv optimize --target-isa avx2" in golden["detail"]) is bool(code)
