"""The CPU lint: each rule finds its fault, measures it, and leaves everything as it was."""

import dataclasses
import shutil
import warnings

import pytest
import torch
from torch import nn

from slimcv.models.capture import capture
from slimcv.profile import layers, profile
from slimcv.profile.contest import Contest
from slimcv.profile.lint import Subject, denormals, inplace, layout, machine, precision
from slimcv.profile.roofline import Limits
from slimcv.profile.whole import Whole
from slimcv.report import figures, render_profile
from slimcv.step import InputSpec, Variant


def variant_of(model, *, size=32):
    spec = InputSpec(3, size, size)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return Variant(capture(model, spec), spec)


def network(width=16):
    convolutions = (nn.Conv2d(3, width, 3, padding=1), nn.ReLU(), nn.Conv2d(width, width, 3, padding=1))
    return nn.Sequential(*convolutions, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 4))


def subject():
    """A subject whose layers nobody has timed."""
    variant = variant_of(network())
    return Subject(variant.model, torch.zeros(1, 3, 32, 32), (), {}, 1)


def check(found, rule):
    return next(one for one in found if one.rule == rule)


def test_denormal_weights_are_counted_bit_by_bit_even_while_the_cpu_flushes_them():
    model = nn.Linear(10, 10)
    with torch.no_grad():
        model.weight.fill_(1.0)
        model.weight[0].fill_(0.0)
        model.weight[1, :4] = torch.tensor([1e-39, -1e-40, 1e-45, 1.2e-38])
        model.bias.fill_(3e-39)
    assert denormals.count(model) == {"weight": 3, "bias": 10}
    assert torch.set_flush_denormal(True)
    try:
        assert denormals.count(model) == {"weight": 3, "bias": 10}
    finally:
        torch.set_flush_denormal(False)


def test_denormal_weights_are_reported_with_their_layer_and_measured_cost():
    variant = variant_of(network())
    with torch.no_grad():
        variant.model.get_submodule("2").weight[:8].fill_(1e-39)
    found = check(profile(variant, threads=1).lint, "denormals")
    assert found.state in ("fault", "note")
    assert "1,152 weights" in found.text
    assert "'2.weight'" in found.text
    assert found.now_ms > 0
    assert found.fixed_ms > 0
    assert "masked_fill_" in found.fix
    assert float(torch.tensor(2e-38) * 0.1) != 0.0


def test_a_healthy_network_has_no_denormals_and_whole_vectors_of_channels():
    lint = profile(variant_of(network()), threads=1).lint
    assert check(lint, "denormals").state == "fine"
    found = check(lint, "channels")
    assert (found.state, found.now_ms) == ("fine", None)
    assert found.text.startswith("2 of 2 dense convolutions with 2 % of the time or more read and write")


def equally_slow(model, limits):
    """A subject each of whose layers takes a tenth of the time."""
    variant = variant_of(model)
    timed = profile(variant, threads=1, limits=limits, extras=False).layers
    heavy = tuple(dataclasses.replace(layer, share=0.1) for layer in timed)
    shapes = {layer.node: (1, *layer.output) for layer in timed}
    shapes[next(iter(variant.model.graph.nodes)).name] = (1, 3, 32, 32)
    return Subject(variant.model, torch.zeros(1, 3, 32, 32), heavy, shapes, 1)


def test_layers_whose_channels_are_not_looked_at_are_counted(limits):
    depthwise, pointwise = nn.Conv2d(16, 16, 3, groups=16), nn.Conv2d(16, 32, 1)
    tail = (nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 4))
    (found,) = layout.channels(
        equally_slow(nn.Sequential(nn.Conv2d(3, 16, 3), depthwise, pointwise, *tail), limits)
    )
    assert found.state == "fine"
    assert found.text.startswith("2 of 2 dense convolutions")
    assert found.text.endswith(
        " channels, pictures aside; not looked at: 1 depthwise convolution, 1 linear layer"
    )
    grouped = nn.Sequential(nn.Conv2d(3, 15, 3, groups=3), *tail[:2], nn.Linear(15, 4))
    (found,) = layout.channels(equally_slow(grouped, limits))
    assert found.text.startswith("0 of 0 dense convolutions")
    assert found.text.endswith("; not looked at: 1 grouped convolution, 1 linear layer")


def test_odd_channel_counts_beyond_the_slowest_three_are_counted(limits, monkeypatch):
    monkeypatch.setattr(layout, "SECONDS", 0.01)
    odd = [nn.Conv2d(reads, 13, 1) for reads in (3, 13, 13, 13, 13)]
    *timed, last = layout.channels(
        equally_slow(nn.Sequential(*odd, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(13, 4)), limits)
    )
    assert len(timed) == 3
    assert last.state == "note"
    assert last.text.startswith("0 of 5 dense convolutions")
    assert "; 2 of the others not timed; not looked at: 1 linear layer" in last.text


def test_odd_channel_counts_are_timed_against_the_next_multiple_of_eight():
    lint = profile(variant_of(network(width=13)), threads=1).lint
    odd = [one for one in lint if one.rule == "channels" and one.now_ms is not None]
    assert {"'0' has 3 → 13", "'2' has 13 → 13"} == {one.text.partition(" channels")[0] for one in odd}
    assert any("with 16 → 16, 1.51 times the work" in one.text for one in odd)
    assert all(one.now_ms > 0 and one.fixed_ms > 0 for one in odd)


@pytest.mark.parametrize(
    ("convolution", "channels"),
    [
        (nn.Conv2d(3, 13, 3), (3, 16)),
        (nn.Conv2d(12, 20, 1, stride=2, bias=False), (16, 24)),
        (nn.Conv2d(16, 24, 3), None),
        (nn.Conv2d(12, 12, 3, groups=12), None),
    ],
)
def test_a_convolution_is_widened_to_whole_vectors_but_for_pictures_and_groups(convolution, channels):
    wide = layout.widened(convolution, lanes=8)
    assert (wide and (wide.in_channels, wide.out_channels)) == channels
    if wide is not None:
        assert (wide.kernel_size, wide.stride) == (convolution.kernel_size, convolution.stride)
        assert (wide.bias is None) == (convolution.bias is None)


def test_vectors_of_avx512_want_multiples_of_sixteen():
    wide = layout.widened(nn.Conv2d(16, 24, 3), lanes=16)
    assert (wide.in_channels, wide.out_channels) == (16, 32)


class Writing(nn.Module):
    """Operations in place: on the picture itself, on a map of their own, and one with a new tensor."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 16, 3), nn.Conv2d(16, 16, 1)

    def forward(self, x):
        x = self.first(x.mul_(0.5))
        y = self.second(torch.relu_(x))
        return (x + y.sigmoid_()).tanh().mean((2, 3))


def test_operations_in_place_are_timed_against_new_tensors_though_the_graph_has_none():
    variant = variant_of(Writing())
    picture = torch.randn(1, 3, 32, 32)
    kept = picture.clone()
    (found,) = inplace.inplace(Subject(variant.model, picture, (), {}, 1, None))
    assert found.now_ms > 0
    assert found.fixed_ms > 0
    assert found.text.startswith("3 operations")
    assert found.state != "fine"
    assert "new tensor" in found.text
    assert torch.equal(picture, kept)


def test_the_network_as_it_was_written_answers_alike_and_leaves_the_picture_alone():
    variant = variant_of(Writing())
    picture = torch.randn(1, 3, 32, 32)
    kept = picture.clone()
    written = inplace.as_written(variant.model)
    targets = [str(node.target) for node in written.graph.nodes if node.op == "call_function"]
    assert [target for target in targets if "_." in target] == ["aten.relu_.default", "aten.sigmoid_.default"]
    assert torch.equal(written(picture), variant.model(kept))
    assert torch.equal(picture, kept)


def test_a_network_without_operations_in_place_is_in_order():
    (found,) = inplace.inplace(subject())
    assert (found.rule, found.state) == ("in-place operations", "fine")


def test_what_int8_reaches_here_is_said_where_it_was_measured():
    limits = Limits(1, 100.0, None, 250.0, 10.0, 0.0)
    (found,) = machine.int8(dataclasses.replace(subject(), limits=limits), native=True)
    assert found.state == "fine"
    assert "large products reach 2.5 times the speed of fp32" in found.text


def test_a_cpu_without_8_bit_products_is_noted():
    (found,) = machine.int8(subject(), native=False)
    assert (found.state, found.rule) == ("note", "int8")
    assert "no instructions for 8-bit products (VNNI)" in found.text
    assert "a quarter of the size" in found.fix


def timed(**milliseconds):
    """Three rounds that took the same."""
    return Contest({name: (ms, ms, ms) for name, ms in milliseconds.items()})


@pytest.mark.parametrize(
    ("fp32", "bf16", "native", "state", "words"),
    [
        (2.0, 30.0, False, "note", "stay in fp32"),
        (2.0, 30.0, True, "note", "stay in fp32; this version of torch has no fast path"),
        (4.0, 2.0, True, "note", "torch.autocast"),
        (2.0, 2.05, True, "fine", None),
    ],
)
def test_bfloat16_is_judged_by_what_a_layer_takes_in_it(fp32, bf16, native, state, words):
    found = precision.judged(timed(fp32=fp32, bf16=bf16), layer="conv1", native=native)
    assert found.state == state
    assert words in found.fix if words else found.fix is None
    assert ("no bfloat16 instructions" in found.text) == (not native)
    assert f"'conv1' takes {figures.milliseconds(bf16)}" in found.text
    slow, fast = sorted((fp32, bf16), reverse=True)
    assert (found.now_ms, found.fixed_ms) == ((slow, fast) if state == "note" else (fp32, bf16))


def test_bfloat16_is_timed_on_the_slowest_convolution():
    lint = profile(variant_of(network()), threads=1).lint
    found = check(lint, "bf16")
    assert "under bf16 autocast" in found.text
    assert found.now_ms > 0
    assert found.fixed_ms > 0


def test_what_is_not_timed_says_why(monkeypatch):
    (found,) = precision.bf16(subject())
    assert (found.state, found.text) == ("note", "not timed, because there is no convolution to try it on")
    variant = variant_of(network())
    convolutions = [node.name for node in variant.model.graph.nodes if node.op == "call_module"]
    heavy = tuple(
        layers.Layer(name, name, "3×3 convolution", (16, 32, 32), 1, 10**9, 1.0, 0.5) for name in convolutions
    )
    shapes = {node.name: (1, 3, 32, 32) for node in variant.model.graph.nodes}
    (found,) = precision.bf16(Subject(variant.model, torch.zeros(1, 3, 32, 32), heavy, shapes, 1, None))
    assert found.state == "note"
    assert "not timed, because every convolution has more than 200 M MACs" in found.text
    monkeypatch.setattr(layout, "MOST_COPIED_BYTES", 10_000)
    (found,) = layout.memory_format(subject())
    assert found.state == "note"
    assert found.text == "not timed, because the other layout of the weights takes 10.9 kB more"
    dense = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 4))
    (found,) = layout.memory_format(dataclasses.replace(subject(), model=variant_of(dense).model))
    assert found.state == "fine"


@pytest.mark.parametrize(("last", "state"), [(5.0, "fault"), (9.9, "fine")])
def test_a_slower_memory_format_is_a_fault(last, state):
    found = layout.judged_format(timed(contiguous=10.0, channels_last=last))
    assert (found.state, found.now_ms, found.fixed_ms) == (state, 10.0, last)
    assert ("channels_last" in (found.fix or "")) == (state == "fault")


def test_threads_that_hinder_each_other_are_a_fault(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "8")
    rounds = timed(**{"1": 5.0, "2": 4.0, "8": 20.0})
    found = machine.judged_threads(rounds, asked=8, allowed=2, quota=2.5)
    assert (found.state, found.now_ms, found.fixed_ms) == ("fault", 20.0, 4.0)
    assert found.text.startswith(
        "PyTorch uses 8 threads, 2 can run at once (quota of 2.5 CPUs): a call takes "
    )
    assert found.text.endswith("; OMP_NUM_THREADS is 8")
    assert found.fix.startswith("torch.set_num_threads(2)")
    calm = machine.judged_threads(rounds, asked=2, allowed=2, quota=None)
    assert (calm.state, calm.fix) == ("fine", None)
    assert "2 can run at once: a call takes" in calm.text


def test_the_lint_leaves_weights_layout_threads_and_modes_alone():
    variant = variant_of(network())
    parameters = dict(variant.model.named_parameters())
    before = {name: (p.data_ptr(), p.stride(), p.clone()) for name, p in parameters.items()}
    threads = torch.get_num_threads()
    profile(variant, threads=2)
    assert torch.get_num_threads() == threads
    for name, (place, stride, value) in before.items():
        assert (parameters[name].data_ptr(), parameters[name].stride()) == (place, stride)
        assert torch.equal(parameters[name], value)


def test_memory_formats_and_thread_counts_are_timed_on_the_network():
    lint = profile(variant_of(network()), threads=2).lint
    for rule in ("memory format", "threads"):
        found = check(lint, rule)
        assert found.now_ms > 0
        assert found.fixed_ms > 0
    assert "can run at once" in check(lint, "threads").text


@pytest.mark.parametrize(("default", "state"), [(15.0, "fault"), (10.5, "fine")])
def test_the_allocator_is_a_fault_where_tuning_it_gains_a_tenth(default, state):
    found = machine.allocator(Whole(default_ms=default, tuned_ms=10.0))
    assert found.state == state
    assert (found.now_ms, found.fixed_ms) == (default, 10.0)
    assert (found.fix is None) == (state == "fine")


def test_allocators_that_were_not_compared_are_not_spoken_of():
    assert "allocator" not in {check.rule for check in profile(variant_of(network()), threads=1).lint}


def test_a_missing_compiler_is_noted_with_how_to_get_one(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda _: None)
    monkeypatch.delenv("CXX", raising=False)
    (found,) = machine.compiler()
    assert found.state == "note"
    assert "C++ compiler" in found.text
    assert "g++" in found.fix


def test_faults_come_first_and_what_is_fine_is_named_in_one_line():
    found = profile(variant_of(network()), threads=1)
    states = [one.state for one in found.lint]
    assert states == sorted(states, key=["fault", "note", "fine"].index)
    fault = layers.Check("channels", "fault", "too odd", "make them even", 2.0, 1.0)
    values = {**found.as_json(), "lint": [vars(fault), vars(layers.Check("threads", "fine", "2 threads"))]}
    text = " ".join(render_profile(values, "text").split())
    assert "1. too odd. Fix: make them even" in text
    assert "in order: threads" in text
    assert "2 threads" not in text.partition("What this CPU makes of it")[2]
