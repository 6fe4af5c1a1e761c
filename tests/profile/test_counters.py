"""What runtimes count goes to the layers by their own names, whatever was merged."""

import io
import shutil
from datetime import timedelta

import numpy as np
import onnx
import pytest
import torch

from slimcv.errors import SlimcvError
from slimcv.models import capture
from slimcv.profile import counters, gathering, named, profile, render
from slimcv.profile.counters import Executed, Ran, owner
from slimcv.profile.counters import openvino as in_openvino
from slimcv.profile.timing import time_layers
from slimcv.runtimes import prepare_onnx

LAYERS = {"stem", "head"} | {
    f"blocks.{place}.{name}" for place in (0, 1) for name in ("conv", "depthwise", "gate")
}


@pytest.fixture(scope="module")
def eager(gated):
    picture = capture.example(gated.input, batch=1)
    return gathering.layers_of(gated, time_layers(gated.model, picture, threads=1, repeats=1))


def test_every_operator_of_the_file_is_named_after_the_node_it_comes_from(gated):
    found = named.export(gated)
    graph = onnx.load_from_string(found.model).graph
    sources = [found.sources(node.name) for node in graph.node]
    assert all(sources)
    folded = next(one for node, one in zip(graph.node, sources, strict=True) if len(one) > 1)
    assert set(folded) == {"blocks_0_conv", "blocks_0_norm"}
    assert found.sources("logits") == ("head",)


def test_the_named_file_answers_as_the_network_does(gated):
    pixels = capture.example(gated.input, batch=3)
    answer = prepare_onnx(named.export(gated).model, "onnxruntime", threads=1).predict(pixels.numpy())
    with torch.no_grad():
        expected = gated.model(pixels)
    np.testing.assert_allclose(answer, expected.numpy(), atol=1e-4)


def test_marking_shares_the_weights_and_leaves_the_graph_alone(gated):
    before = gated.model.code
    marked = named.marked(gated.model)
    own = {parameter.data_ptr() for parameter in gated.model.parameters()}
    assert own >= {parameter.data_ptr() for parameter in marked.parameters()}
    assert gated.model.code == before


@pytest.mark.parametrize("runtime", ["openvino", "onnxruntime"])
def test_all_that_a_runtime_counts_belongs_to_a_layer(gated, eager, runtime):
    ran = counters.count(gated, runtime, threads=1)
    assert ran.mapped_share == 1.0
    assert all(node.sources for node in ran.nodes)
    layers = gathering.counted(eager, ran)
    assert sum(layer.ms for layer in layers) == pytest.approx(sum(node.ms for node in ran.nodes))
    assert sum(layer.share for layer in layers) == pytest.approx(1)
    assert {layer.name for layer in layers if layer.runs_as} >= LAYERS


class AllBelowAMicrosecond:
    """A compiled model and its request: of so quick nodes the plug-in says that they did not run."""

    def __init__(self, compiled):
        self.get_runtime_model = compiled.get_runtime_model
        self._request = compiled.create_infer_request()
        self.infer = self._request.infer

    def create_infer_request(self):
        return self

    @property
    def profiling_info(self):
        status = in_openvino.runtime.import_library().ProfilingInfo.Status.NOT_RUN
        for entry in self._request.profiling_info:
            entry.status, entry.real_time = status, timedelta(0)
            yield entry


def test_layers_below_a_microsecond_are_counted_in_openvino(gated, eager):
    model, openvino = named.export(gated), in_openvino.runtime.import_library()
    read = openvino.Core().read_model(io.BytesIO(model.model))
    compiled = openvino.Core().compile_model(read, "CPU", {"PERF_COUNT": True})
    batch = capture.example(gated.input, batch=1).numpy()
    nodes = in_openvino._counted(AllBelowAMicrosecond(compiled), model, batch, calls=3)
    layers = gathering.counted(eager, Ran(nodes, 1.0, "fp32", 3))
    assert {layer.name for layer in layers if layer.runs_as} >= LAYERS
    assert {layer.node for layer in layers if layer.merged_into} >= {"relu", "blocks_0_norm", "relu_1"}


@pytest.mark.parametrize("runtime", ["openvino", "onnxruntime"])
def test_norms_and_activations_are_merged_into_the_convolution_before_them(gated, eager, runtime):
    layers = gathering.counted(eager, counters.count(gated, runtime, threads=1))
    merged = {layer.node: layer.merged_into for layer in layers if layer.merged_into}
    assert merged["relu"] == "stem"
    assert merged["blocks_0_norm"] == "blocks.0.conv"
    assert merged["relu_1"] == "blocks.0.conv"
    assert all(layer.ms == 0 for layer in layers if layer.merged_into)


@pytest.mark.skipif(not any(map(shutil.which, ("g++", "clang++", "c++"))), reason="needs a C++ compiler")
def test_inductor_says_which_layers_its_kernels_are_made_of(gated, eager):
    ran = counters.count(gated, "inductor", threads=1)
    named_layers = {name for node in ran.nodes for name in node.sources}
    calls = {node.name for node in gated.model.graph.nodes if node.op.startswith("call_")}
    assert named_layers == calls
    layers = gathering.counted(eager, ran)
    assert {layer.name for layer in layers if layer.runs_as} >= LAYERS


def test_a_merged_node_belongs_to_the_layer_with_most_products():
    assert owner(["norm", "conv", "relu"], {"conv": 10, "head": 20}) == "conv"
    assert owner(["relu", "add"], {}) == "relu"
    assert owner([], {}) is None


def test_what_a_runtime_does_for_itself_has_a_row_of_its_own(eager):
    nodes = (Executed("a", "Conv", 3.0, ("stem", "relu")), Executed("b", "Reorder", 1.0, ()))
    ran = Ran(nodes, 4.0, "fp32", 5)
    layers = gathering.counted(eager, ran)
    assert ran.mapped_share == 0.75
    assert (layers[-1].name, layers[-1].ms, layers[-1].share) == ("(Reorder)", 1.0, 0.25)
    assert next(layer for layer in layers if layer.name == "stem").ms == 3.0


def test_a_layer_is_computed_in_what_its_slowest_part_is_whatever_is_changed_around_it(eager, gated, limits):
    nodes = (
        Executed("in", "Reorder", 1.0, ("stem",), "fp32"),
        Executed("conv", "Convolution", 3.0, ("stem", "relu"), "int8"),
        Executed("out", "Reorder", 1.0, ("stem",), "fp32"),
        Executed("head", "FullyConnected", 1.0, ("head",), "fp32"),
    )
    ran = Ran(nodes, 6.0, "int8", 5)
    layers = gathering.counted(eager, ran)
    picture = capture.example(gated.input, batch=1)
    needs = gathering.demands(gated.model, eager, time_layers(gated.model, picture, threads=1, repeats=1))
    asked = gathering.loads(layers, needs, limits, ran, precision="fp32")
    widths = {name: asked[name].activation_bytes / needs[name].activations for name in asked}
    assert (widths["stem"], widths["relu"], widths["head"]) == (1, 1, 4)


def test_a_runtime_that_counts_nothing_is_refused(gated):
    with pytest.raises(SlimcvError, match="counts nothing"):
        counters.count(gated, "openvin", threads=1)


def test_a_profile_in_a_runtime_says_where_its_times_are_from(gated, limits):
    found = profile(gated, threads=1, runtime="openvino", limits=limits, extras=False)
    assert (found.totals.runtime, found.totals.mapped_share) == ("openvino", 1.0)
    text = render(found, "markdown")
    assert "OpenVINO" in text
    assert "in blocks.0.conv" in text
    assert {kind.kind for kind in found.by_block} >= {"blocks.0", "blocks.1"}


def test_onnx_runtime_leaves_denormal_numbers_to_the_caller(gated):
    counters.count(gated, "onnxruntime", threads=1)
    assert float(torch.tensor(2e-38) * 0.1) != 0.0
