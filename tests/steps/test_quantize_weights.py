"""The step `quantize_weights`: a quarter of the bytes, the same answers everywhere, no picture needed."""

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import nn

from slimcv import packed, parity, runtimes
from slimcv.errors import NotApplicable
from slimcv.models import capture, checkpoint
from slimcv.quantization import weights
from slimcv.step import Context, InputSpec, Stage, Variant
from slimcv.steps.fuse_conv_bn import FuseConvBn
from slimcv.steps.quantize_int8 import QuantizeInt8
from slimcv.steps.quantize_weights import QuantizeWeights


@pytest.fixture
def fused(handwriting, tmp_path):
    return FuseConvBn().apply(handwriting.fresh(), handwriting.context(tmp_path))


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_without_pictures_every_runtime_gives_the_graphs_own_answers(handwriting, fused, tmp_path, runtime):
    context = handwriting.context(tmp_path, data=None)
    quantized = QuantizeWeights().apply(fused, context)
    assert QuantizeWeights.stage is Stage.QUANTIZE
    _, found = parity.export(quantized, runtime, context=context, tolerance=1e-4)
    assert found["precision"] in ("fp32", "bf16"), "weights are integers, what is computed are floats"


def test_the_file_holds_int8_weights_and_the_accuracy_is_kept(handwriting, fused, tmp_path):
    before = runtimes.write(fused, "onnxruntime", tmp_path, name="before").stat().st_size
    quantized = QuantizeWeights().apply(fused, handwriting.context(tmp_path, data=None))
    path = runtimes.write(quantized, "onnxruntime", tmp_path, name="after")
    model = onnx.load(path)
    stored = [numpy_helper.to_array(each) for each in model.graph.initializer]
    assert sum(each.size for each in stored if each.dtype == np.int8 and each.ndim > 1) == 32_232
    assert not any(each.dtype == np.float32 and each.ndim > 1 for each in stored)
    assert [node.op_type for node in model.graph.node].count("DequantizeLinear") == 4
    assert path.stat().st_size < before / 3
    floats = handwriting.top1(handwriting.fresh(), tmp_path)
    assert handwriting.top1(quantized, tmp_path) >= floats - 0.5


def test_fewer_bits_take_as_many_fewer_bytes_once_packed(tmp_path):
    torch.manual_seed(0)
    spec = InputSpec(3, 16, 16)
    net = nn.Sequential(
        nn.Conv2d(3, 64, 3), nn.ReLU(), nn.Conv2d(64, 128, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1),
        nn.Flatten(), nn.Linear(128, 10),
    ).eval()  # fmt: skip
    weights = sum(parameter.numel() for parameter in net.parameters() if parameter.ndim > 1)
    found = {}
    for bits in (8, 4, 2):
        given = Variant(capture.capture(net, spec), spec)
        context = Context(given, None, tmp_path, threads=1, train_threads=1)
        variant = QuantizeWeights(bits=bits).apply(given, context)
        path = runtimes.write(variant, "onnxruntime", tmp_path, name=f"in{bits}")
        assert path.stat().st_size > weights, "unpacked, the file holds int8 whatever the bits"
        found[bits] = packed.pack(path)
        assert packed.read(tmp_path / f"in{bits}.slim")[0] == path.read_bytes()
    scales = 4 * (64 + 128 + 10) * 2
    for bits, each in found.items():
        assert 0.6 * weights * bits / 8 < each.tensor_bytes < 1.02 * weights * bits / 8 + scales
    assert found[2].bytes < 0.62 * found[4].bytes
    assert found[4].bytes < 0.62 * found[8].bytes


@pytest.mark.parametrize("bits", [8, 4, 2])
@pytest.mark.parametrize("per_channel", [True, False])
def test_integers_keep_to_their_range_and_no_other_scale_is_better(bits, per_channel):
    weight = torch.randn(8, 4, 3, 3, generator=torch.Generator().manual_seed(0)) * torch.arange(1, 9).view(
        -1, 1, 1, 1
    )
    integers, scale = weights.rounded(weight, bits=bits, per_channel=per_channel)
    assert (int(integers.min()), int(integers.max())) >= (-(2 ** (bits - 1)), 0)
    assert int(integers.max()) <= 2 ** (bits - 1) - 1
    assert (len(scale), len(scale.unique())) == (8, 8 if per_channel else 1)
    steps = scale.view(-1, 1, 1, 1)
    error = (integers * steps - weight).square().sum()
    for factor in (0.9, 0.97, 1.03, 1.1):
        other = (weight / (steps * factor)).round().clamp(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
        assert error <= 1.02 * (other * steps * factor - weight).square().sum()


def test_fewer_bits_cost_accuracy_and_pictures_bring_some_back(handwriting, fused, tmp_path):
    errors = {}
    for bits in (8, 4, 2):
        step = QuantizeWeights(bits=bits, correct_bias=False)
        found = step.apply(_copy(fused), handwriting.context(tmp_path))
        errors[bits] = max(found.details["quantize_weights"]["errors"].values())
    assert errors[8] < 0.02 < errors[4] < 0.2 < errors[2]
    batch = torch.from_numpy(
        parity.normalisation.normalised(handwriting.data.val.pixels(8, 8, 3)[:64], fused.input)
    )
    plain, corrected = (
        QuantizeWeights(bits=4, correct_bias=correct).apply(_copy(fused), handwriting.context(tmp_path))
        for correct in (False, True)
    )
    with torch.no_grad():
        expected = fused.model(batch).mean(0)
        assert (corrected.model(batch).mean(0) - expected).norm() < (
            plain.model(batch).mean(0) - expected
        ).norm()


def _copy(variant):
    from dataclasses import replace

    return replace(variant, model=capture.copy(variant.model))


def test_padding_by_name_groups_strides_and_a_checkpoint(tmp_path):
    spec = InputSpec(3, 9, 9)
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 6, 3, padding="same", dilation=2), nn.ReLU(),
        nn.Conv2d(6, 6, 3, stride=2, groups=6, bias=False), nn.ReLU(),
        nn.Conv2d(6, 4, 3, padding=1, padding_mode="reflect"), nn.Flatten(), nn.Linear(64, 3),
    )  # fmt: skip
    model = capture.capture(network.eval(), spec)
    quantized, errors = weights.quantize(model, bits=8, per_channel=True)
    assert {"0", "2", "6"} <= set(errors)
    batch = torch.randn(4, *spec.shape)
    with torch.no_grad():
        expected = model(batch)
        torch.testing.assert_close(
            quantized(batch), expected, rtol=0, atol=0.02 * float(expected.abs().max())
        )
    checkpoint.save(Variant(quantized, spec), tmp_path / "weights.pt2")
    again = checkpoint.read(tmp_path / "weights.pt2")
    with torch.no_grad():
        assert torch.equal(again.model(batch), quantized(batch))


def test_what_is_int8_already_or_has_no_layer_is_not_applicable(handwriting, fused, tmp_path):
    context = handwriting.context(tmp_path)
    with pytest.raises(NotApplicable, match="already"):
        QuantizeWeights().apply(QuantizeInt8(calibration_images=8).apply(_copy(fused), context), context)
