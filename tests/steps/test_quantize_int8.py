"""The step `quantize_int8`: one INT8 graph, smaller, near the float one, the same in every runtime."""

import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from torch import nn

from slimcv import parity, quantization, runtimes
from slimcv.data.normalisation import normalised
from slimcv.errors import NotApplicable, Rejected
from slimcv.measure import environment
from slimcv.models import capture, checkpoint
from slimcv.step import Context, InputSpec, Stage, Variant
from slimcv.steps.quantize_int8 import QuantizeInt8

INPUT = InputSpec(3, 16, 16)


def variant(kernel=3):
    """Kernels of even size stay in float: their padding is one-sided."""
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 32, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(32, 32, kernel, padding="same"),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(32, 2),
    )
    return Variant(capture.capture(network, INPUT), INPUT)


@pytest.fixture
def context(data, tmp_path):
    return Context(variant(), data, tmp_path, threads=1, train_threads=1)


@pytest.fixture(scope="module")
def quantized(data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("work")
    here = Context(variant(), data, folder, threads=1, train_threads=1)
    given = replace(variant(), artifacts={"eager": folder / "stale.pt2"})
    return QuantizeInt8(reduce_range=True).apply(given, here)


def test_the_step_quantises_and_needs_data(context):
    assert QuantizeInt8.stage is Stage.QUANTIZE
    assert QuantizeInt8.needs_data
    assert not QuantizeInt8.lossless
    with pytest.raises(NotApplicable, match="needs data"):
        QuantizeInt8().apply(variant(), replace(context, data=None))


def test_the_variant_says_that_it_is_int8_and_drops_what_was_exported_before(quantized):
    assert quantized.precision == "int8"
    assert quantized.int8_mac_share == 1.0
    assert quantized.artifacts == {}
    assert quantized.details["quantize_int8"]["layers_in_float"] == []


def test_fewer_pictures_than_asked_for_are_all_taken(quantized, data):
    assert quantized.details["quantize_int8"]["calibration_images"] == len(data.train) < 300


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_every_runtime_answers_like_the_graph(runtime, quantized, context):
    _, found = parity.export(quantized, runtime, context=context, tolerance=1e-4)
    assert found["precision"] == "int8"
    assert found["relative_error"] < 0.03


def test_the_graph_survives_a_checkpoint_and_takes_a_third_of_the_bytes(quantized, context, tmp_path):
    checkpoint.save(quantized, tmp_path / "int8.pt2")
    again = checkpoint.read(tmp_path / "int8.pt2")
    batch = torch.from_numpy(normalised(parity.pictures(quantized, context), quantized.input))
    with torch.no_grad():
        assert torch.equal(again.model(batch), quantized.model(batch))
    assert again.precision == "int8"
    assert again.int8_mac_share == 1.0
    sizes = [
        runtimes.write(each, "openvino", tmp_path, name=each.precision).with_suffix(".bin").stat().st_size
        for each in (variant(), quantized)
    ]
    assert sizes[1] < sizes[0] / 3


def test_too_much_in_float_is_rejected_with_the_layers_named(context):
    with pytest.raises(Rejected, match=r"of the MACs are INT8, asked for 95%; in float stay 2"):
        QuantizeInt8().apply(variant(kernel=2), context)


def test_what_is_int8_already_is_left_alone(quantized, context):
    with pytest.raises(NotApplicable, match="already"):
        QuantizeInt8().apply(quantized, context)


def test_the_range_is_reduced_where_this_cpu_would_saturate(context):
    chosen = QuantizeInt8(calibration_images=4).apply(variant(), context)
    assert chosen.details["quantize_int8"]["reduce_range"] is not environment.has_int8_instructions()


@pytest.mark.parametrize(
    ("target", "largest"),
    [("avx2", 63), ("avx512", 63), ("avx512_vnni", 127), ("avx512_bf16", 127), ("amx", 127)],
)
def test_weights_are_made_for_the_cpu_that_will_serve(context, target, largest):
    made = QuantizeInt8(calibration_images=4, target_isa=target, correct_bias=False).apply(variant(), context)
    weights = [tensor for tensor in made.model.state_dict().values() if tensor.dtype == torch.int8]
    assert max(int(weight.max()) for weight in weights) in (largest, largest - 1)


def test_the_same_seed_gives_the_same_graph_and_threads_are_put_back(context):
    before = torch.get_num_threads()
    first, second = (QuantizeInt8(calibration_images=8).apply(variant(), context) for _ in range(2))
    assert first.model.code == second.model.code
    assert torch.get_num_threads() == before


def test_the_graph_is_read_by_a_process_that_has_never_quantised(tmp_path):
    network = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4)
    )
    spec = InputSpec(3, 12, 12)
    pictures = [torch.randn(4, 3, 12, 12)]
    model = capture.capture(network, spec)
    found = quantization.calibrated(model, pictures, input=spec, reduce_range=False)
    checkpoint.save(Variant(found.corrected(found.graph), spec, precision="int8"), tmp_path / "model.pt2")
    code = (
        "import sys; from pathlib import Path; from slimcv.models import checkpoint; "
        "print(checkpoint.read(Path(sys.argv[1])).precision)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, tmp_path / "model.pt2"], capture_output=True, text=True, check=False
    )
    assert done.stdout.split() == ["int8"], done.stderr
