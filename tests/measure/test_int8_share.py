"""The share of a file's MACs on 8-bit integers is read from the file, whoever quantised it."""

from dataclasses import replace

import numpy as np
import onnx
import pytest
import torch
from onnxruntime.quantization import QuantFormat, quantize_static
from torch import nn

from slimcv import runtimes
from slimcv.measure import int8_share, macs
from slimcv.models import capture
from slimcv.quantization import by_onnxruntime, by_openvino
from slimcv.step import InputSpec, Variant

INPUT = InputSpec(3, 16, 16)


class Net(nn.Module):
    """Dense, depthwise and linear layers, pooling, a concatenation, and a gate that multiplies."""

    def __init__(self):
        super().__init__()
        self.first, self.other = nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(3, 16, 3, padding=1)
        self.deep = nn.Conv2d(32, 32, 3, groups=32, padding=1)
        self.last, self.head = nn.Conv2d(32, 32, 1), nn.Linear(32, 4)

    def forward(self, x):
        maps = torch.cat([self.first(x).relu(), self.other(x).relu()], 1)
        maps = self.deep(nn.functional.max_pool2d(maps, 2)).relu()
        maps = self.last(maps * maps.mean((2, 3), keepdim=True).sigmoid())
        return self.head(maps.mean((2, 3)))


def variant():
    torch.manual_seed(0)
    return Variant(capture.capture(Net().eval(), INPUT), INPUT)


def pixels():
    return np.random.default_rng(0).integers(0, 256, (8, 16, 16, 3), dtype=np.uint8)


def by_hand(original):
    """What each layer multiplies, by its name."""
    return macs.by_layer(original.model, INPUT)


def test_a_file_in_floats_has_none(tmp_path):
    for runtime in ("onnxruntime", "openvino"):
        assert int8_share.of_file(runtimes.write(variant(), runtime, tmp_path)) == 0.0


@pytest.mark.parametrize("takes_pixels", [True, False])
def test_a_file_of_onnx_runtimes_quantiser_says_its_share(tmp_path, takes_pixels):
    path = by_onnxruntime.quantize(
        variant(), pixels(), tmp_path, reduce_range=False, takes_pixels=takes_pixels
    )
    assert int8_share.of_file(path) == 1.0


def test_a_file_of_nncf_says_its_share(tmp_path):
    pytest.importorskip("nncf")
    fed = replace(variant(), details={"input_format": runtimes.PIXELS})
    assert int8_share.of_file(by_openvino.quantize(fed, pixels(), tmp_path, reduce_range=False)) == 1.0


def test_what_stays_in_floats_is_counted_by_its_macs(tmp_path):
    original = variant()
    whole = runtimes.write(original, "onnxruntime", tmp_path)
    model = onnx.load(whole)
    named = {node.name: node for node in model.graph.node}
    left = next(name for name, node in named.items() if "last.weight" in node.input)
    reader = by_onnxruntime._Reader(pixels(), INPUT)
    path = tmp_path / "mixed.onnx"
    quantize_static(whole, path, reader, quant_format=QuantFormat.QDQ, nodes_to_exclude=[left])
    costs = by_hand(original)
    assert int8_share.of_file(path) == pytest.approx(1 - costs["last"] / sum(costs.values()))


def test_a_file_that_cannot_be_read_has_an_unknown_share(tmp_path):
    (tmp_path / "model.onnx").write_bytes(b"no model")
    assert int8_share.of_file(tmp_path / "model.onnx") is None
