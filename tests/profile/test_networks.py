"""A profile is right on whatever else a network may be made of: integers, attention, layers called twice."""

import json
import warnings

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from slimcv import data as datasets
from slimcv import recipe
from slimcv.models import checkpoint
from slimcv.models.capture import capture
from slimcv.profile import profile, render
from slimcv.profile.difference import pairs
from slimcv.profile.prediction import Bench, Network, predict
from slimcv.step import Context, InputSpec, Variant
from slimcv.steps.quantize_int8 import QuantizeInt8

INPUT = InputSpec(3, 16, 16)


class Attending(nn.Module):
    """A block of a ViT on four patches, with torch's own attention, a norm of layers and a GELU."""

    def __init__(self):
        super().__init__()
        self.patches = nn.Conv2d(3, 16, 8, stride=8)
        self.norm = nn.LayerNorm(16)
        self.attention = nn.MultiheadAttention(16, 2, batch_first=True)
        self.wide, self.narrow = nn.Linear(16, 32), nn.Linear(32, 16)
        self.head = nn.Linear(16, 5)

    def forward(self, x):
        x = self.patches(x).flatten(2).transpose(1, 2)
        y = self.norm(x)
        x = x + self.attention(y, y, y, need_weights=False)[0]
        x = x + self.narrow(nn.functional.gelu(self.wide(x)))
        return self.head(x.mean(1))


class Transposed(nn.Module):
    """Down, and up again with a transposed convolution."""

    def __init__(self):
        super().__init__()
        self.down, self.norm = nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.BatchNorm2d(8)
        self.up = nn.ConvTranspose2d(8, 4, 4, stride=2, padding=1)
        self.head = nn.Linear(4, 5)

    def forward(self, x):
        return self.head(self.up(torch.relu(self.norm(self.down(x)))).mean((2, 3)))


class Twice(nn.Module):
    """One convolution and one activation that are called twice."""

    def __init__(self):
        super().__init__()
        self.stem, self.again, self.act = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 3, padding=1), nn.ReLU()
        self.head = nn.Linear(8, 5)

    def forward(self, x):
        x = self.act(self.again(self.act(self.again(self.stem(x)))))
        return self.head(x.mean((2, 3)))


class Laid(nn.Module):
    """Maps joined, padded, cut and laid out anew, some of it in the memory that they are in."""

    def __init__(self):
        super().__init__()
        self.stem, self.head = nn.Conv2d(3, 8, 1), nn.Linear(8 * 18 * 18, 5)

    def forward(self, x):
        x = self.stem(x)
        x = nn.functional.pad(torch.cat([x, x * x], 1), (1, 1, 1, 1))
        left, right = x.split(8, 1)
        return self.head((left * right).permute(0, 2, 3, 1).flatten(1))


class Plain(nn.Module):
    """What quantize_int8 makes integers of."""

    def __init__(self):
        super().__init__()
        self.stem, self.conv = nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(16, 16, 3, padding=1)
        self.head = nn.Linear(16, 2)

    def forward(self, x):
        return self.head(torch.relu(self.conv(torch.relu(self.stem(x)))).mean((2, 3)))


NETWORKS = {"attention": Attending, "transposed": Transposed, "twice": Twice}


def captured(network):
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return Variant(capture(network().eval(), INPUT), INPUT)


@pytest.fixture(scope="module")
def int8(tmp_path_factory, write_noise):
    """The graph of quantize_int8, written to a .pt2 and read back."""
    folder = tmp_path_factory.mktemp("int8")
    write_noise(folder, size=16, each=8)
    data = datasets.load(str(folder / "pictures"), cache=folder / "cache")
    plain = captured(Plain)
    context = Context(plain, data, folder, threads=1, train_threads=1)
    checkpoint.save(
        QuantizeInt8(reduce_range=True, calibration_images=8).apply(plain, context), folder / "a.pt2"
    )
    return checkpoint.read(folder / "a.pt2")


@pytest.fixture(scope="module", params=[*NETWORKS, "int8"])
def variant(request):
    return request.getfixturevalue("int8") if request.param == "int8" else captured(NETWORKS[request.param])


def flops(variant):
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        variant.model(torch.zeros(1, *INPUT.shape))
    return counter.get_total_flops()


@pytest.mark.parametrize("runtime", ["eager", "openvino", "onnxruntime"])
def test_every_layer_has_a_place_and_all_forms_can_be_drawn(variant, runtime, limits):
    extras = runtime == "eager"
    found = profile(variant, threads=1, limits=limits, runtime=runtime, extras=extras)
    assert sum(layer.macs for layer in found.layers) == found.totals.macs > 0
    assert sum(layer.parameters for layer in found.layers) == found.totals.parameters > 0
    assert sum(layer.share for layer in found.layers) == pytest.approx(1)
    assert found.totals.mapped_share > 0.5
    assert all(layer.ms > 0 for layer in found.layers if layer.macs and not layer.merged_into)
    assert all(layer.gflops for layer in found.layers if layer.macs and layer.ms)
    names = [layer.node for layer in found.layers if layer.node]
    assert len(set(names)) == len(names)
    json.loads(render(found, "json"), parse_constant=pytest.fail)
    assert max(map(len, render(found, "text").splitlines())) <= 80
    assert render(found, "markdown").count("\n## ") >= 4
    if extras:
        assert {one["step"] for one in found.predictions} == set(recipe.step_names())
        for one in found.predictions:
            assert one["problem"] or 0 < one["after_bytes"] <= 1.1 * one["before_bytes"], one
        assert {check.rule for check in found.lint} >= {"memory format", "bf16", "threads", "channels"}


@pytest.mark.parametrize("network", ["transposed", "twice"])
def test_products_are_those_that_torch_counts(network, limits):
    variant = captured(NETWORKS[network])
    found = profile(variant, threads=1, limits=limits, extras=False)
    assert 2 * found.totals.macs == flops(variant)


def test_the_products_of_attention_are_counted(limits):
    found = profile(captured(Attending), threads=1, limits=limits, extras=False)
    tokens, width = 4, 16
    linear = tokens * (4 * width * width + 2 * width * 2 * width) + width * 5
    assert found.totals.macs == tokens * 3 * 64 * width + linear + 2 * tokens * tokens * width
    assert sum(layer.macs for layer in found.layers if layer.kind == "attention") == 2 * tokens**2 * width


def test_integers_are_told_from_floats(int8, limits):
    found = profile(int8, threads=1, limits=limits)
    assert found.totals.parameters == 3 * 16 * 9 + 16 * 16 * 9 + 16 * 2 + 16 + 16 + 2
    assert {one.step for one in found.advice} <= {"export_openvino", "export_onnx"}
    problems = {one["step"]: one["problem"] for one in found.predictions}
    assert problems["quantize_int8"] == problems["depthwise_separable"] == "the network is INT8 already"


def test_a_layer_on_integers_has_the_weights_and_maps_it_had_on_floats(int8, limits):
    before, after = (profile(one, threads=1, limits=limits, extras=False) for one in (captured(Plain), int8))
    costs = [
        {
            layer.name: (layer.kind, layer.parameters, layer.macs, layer.activation_bytes, layer.weight_bytes)
            for layer in found.layers
            if layer.macs
        }
        for found in (before, after)
    ]
    assert costs[0] == costs[1]
    assert set(costs[1]) == {"stem", "conv", "head"}
    rounding = [layer for layer in after.layers if layer.kind == "quantisation"]
    assert len(rounding) > len(costs[1])
    assert not any(layer.parameters or layer.weight_bytes for layer in rounding)
    assert sum(kind.weight_bytes for kind in after.by_kind) == 4 * after.totals.parameters
    beside = {one.name: one for one in pairs(before.as_json()["layers"], after.as_json()["layers"])}
    assert [name for name, one in beside.items() if one.before is None] == ["(quantisation)"]
    assert all(beside[name].after.parameters == beside[name].before.parameters for name in costs[1])


def test_what_onnx_runtime_keeps_in_float_of_an_int8_network_is_no_int8(int8, limits):
    found = profile(int8, threads=1, limits=limits, runtime="onnxruntime", extras=False)
    layers = {layer.name: layer for layer in found.layers if layer.macs}
    assert layers["stem"].runs_as == "QLinearConv"
    widths = {name: layer.weight_bytes / layer.parameters for name, layer in layers.items()}
    assert widths == {"stem": 1, "conv": 4, "head": 4}


def test_views_are_free_and_copies_move_what_they_read_and_write(limits):
    found = profile(captured(Laid), threads=1, limits=limits, extras=False)
    layers = {layer.node: layer for layer in found.layers}
    inner, outer = 16 * 16 * 16, 16 * 18 * 18
    moved = {"cat": 4 * 2 * inner, "pad": 4 * (inner + outer), "flatten": 4 * outer}
    for node, bytes in moved.items():
        assert (layers[node].kind, layers[node].activation_bytes) == ("copy", bytes)
        assert (layers[node].bound, layers[node].roofline_ms) == ("memory", pytest.approx(bytes / 1e7))
    views = [layer for layer in found.layers if layer.kind == "reshape"]
    assert {layer.node.partition("_")[0] for layer in views} == {"split", "getitem", "permute"}
    assert {(layer.activation_bytes, layer.bound) for layer in views} == {(0, None)}


def test_a_transposed_convolution_is_no_dense_one(limits):
    found = profile(captured(Transposed), threads=1, limits=limits)
    kinds = {layer.name: layer.kind for layer in found.layers}
    assert kinds["up"] == "transposed convolution"
    named = [one.text for one in found.advice if one.step == "depthwise_separable"]
    assert not any("4×4" in text for text in named)


def test_weights_that_are_used_twice_are_stored_once(limits):
    variant = captured(Twice)
    found = profile(variant, threads=1, limits=limits, extras=False)
    stored = 3 * 8 + 8 * 8 * 9 + 8 * 5
    again = [layer for layer in found.layers if layer.name == "again"]
    assert [layer.parameters for layer in again] == [8 * 8 * 9 + 8, 0]
    assert [layer.macs for layer in again] == [8 * 8 * 9 * 256] * 2
    shapes = {layer.node: (1, *layer.output) for layer in found.layers} | {"x": (1, *INPUT.shape)}
    layers = {layer.node: layer for layer in found.layers}
    network = Network(variant, layers, shapes, "openvino", found.totals.weight_bytes)
    for name, left in (("quantize_int8", 1), ("quantize_weights", 1)):
        told = predict(name, recipe.step_class(name)(), network, Bench(threads=1, deadline=0.0))
        assert told.before_bytes - told.after_bytes == (4 - left) * stored
