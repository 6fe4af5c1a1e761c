"""What a step would save is foretold from the layers it would make, in shapes that are those it makes."""

import dataclasses

import numpy as np
import onnx
import pytest
import torch
import yaml
from torch import nn

from slimcv import instruments, recipe
from slimcv.errors import NotApplicable
from slimcv.measure import macs
from slimcv.models import capture
from slimcv.profile import gathering, profile
from slimcv.profile.prediction import Network, beforehand, changes, packed, predict, predict_all, training
from slimcv.profile.prediction.bench import Bench
from slimcv.profile.prediction.changes import change_of, pieces_of
from slimcv.profile.prediction.pieces import Piece, piece_of, random_batch
from slimcv.profile.roofline import Limits
from slimcv.report import pasting
from slimcv.report import predictions as drawn
from slimcv.runtimes import prepare_onnx
from slimcv.step import Context, InputSpec, Stage, Variant

DENSE = Piece(16, 32, (16, 8, 8), kernel=(3, 3), padding=(1, 1))


LIMITS = Limits(1, 100.0, 200.0, 400.0, 10.0, 0.0)


class ByMacs:
    """Pieces timed by a clock that knows nothing but their MACs: a million a millisecond, four with INT8.

    What `predict` makes of times can be told exactly from it; tests of what times are use a `Bench`.
    """

    def ms(self, piece, _runtime, *, int8=False):
        return piece.macs / 1e6 / (4 if int8 else 1)

    def training_ms(self, piece):
        return 3 * piece.macs / 1e6


class Slow(ByMacs):
    """The same, but for what nothing is faster than."""

    def ms(self, _piece, _runtime, *, int8=False):  # noqa: ARG002
        return 5.0


def network_of(variant, runtime="openvino"):
    """A network whose layers take what `ByMacs` says, and a tenth of a millisecond for all that is none."""
    shapes = capture.shapes(variant.model, variant.input, batch=1)
    pieces = pieces_of(variant.model, shapes)
    layers = {
        layer.node: dataclasses.replace(
            layer, ms=pieces[layer.node].macs / 1e6 if layer.node in pieces else 0.1
        )
        for layer in profile(variant, threads=1, repeats=1, limits=LIMITS, extras=False).layers
    }
    whole = sum(parameter.numel() for parameter in variant.model.parameters())
    return Network(variant, layers, shapes, runtime, 4 * whole)


@pytest.fixture(scope="module")
def network(gated):
    return network_of(gated)


def step(name, **settings):
    return recipe.step_class(name)(**settings)


def made(name, variant, **settings):
    """What the step itself makes of the network."""
    copied = dataclasses.replace(variant, model=capture.copy(variant.model))
    context = Context(teacher=variant, data=None, workdir=None, threads=1, train_threads=1)
    return step(name, **settings).apply(copied, context)


def macs_after(name, network, **settings):
    change = change_of(name, step(name, **settings), network)
    return sum(
        piece.macs for node, own in network.pieces.items() for piece in change.pieces.get(node, (own,))
    )


@pytest.mark.parametrize("rank", [1, 2])
def test_separable_convolutions_are_foretold_as_the_step_makes_them(gated, network, rank):
    found = made("depthwise_separable", gated, rank=rank, correct=False, absorb_norms=False)
    assert macs_after("depthwise_separable", network, rank=rank) == macs.count(found.model, found.input)


def test_a_smaller_picture_is_foretold_as_the_step_makes_it(gated, network):
    found = made("reduce_resolution", gated, scale=0.5)
    assert macs_after("reduce_resolution", network, scale=0.5) == macs.count(found.model, found.input)


def test_ranks_are_those_of_the_singular_values():
    torch.manual_seed(0)
    layer = nn.Linear(24, 40)
    with torch.no_grad():
        layer.weight.copy_(torch.randn(40, 24) @ torch.diag(0.8 ** torch.arange(24)))
    squares = torch.linalg.svdvals(layer.weight.detach()).square()
    for energy in (0.5, 0.9, 0.99):
        kept = torch.cumsum(squares, 0) / squares.sum()
        assert changes._rank(layer, energy) == int((kept < energy).sum()) + 1
    conv = nn.Conv2d(40, 24, 1)
    conv.weight = nn.Parameter(layer.weight.detach().t().reshape(24, 40, 1, 1).clone())
    assert changes._rank(conv, 0.9) == changes._rank(layer, 0.9)


def test_pictures_too_small_for_the_network_are_foretold_as_the_step_refuses_them():
    net = nn.Sequential(nn.Conv2d(3, 8, 3, stride=4), nn.ReLU(), nn.MaxPool2d(2), nn.AdaptiveAvgPool2d(1))
    input = InputSpec(3, 16, 16)
    small = nn.Sequential(*net, nn.Flatten(), nn.Linear(8, 4)).eval()
    flat = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Flatten(), nn.Linear(8 * 14 * 14, 4)).eval()
    for network, words in ((small, "would shrink to"), (flat, "does not run at 3x8x8")):
        variant = Variant(capture.capture(network, input), input)
        with pytest.raises(NotApplicable, match=words):
            change_of("reduce_resolution", step("reduce_resolution"), network_of(variant))
        with pytest.raises(NotApplicable, match=words):
            made("reduce_resolution", variant)


def test_pooling_takes_the_head_s_positions_away():
    flat = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 256, 4))
    input = InputSpec(3, 16, 16)
    network = network_of(Variant(capture.capture(flat.eval(), input), input))
    assert macs_after("global_average_pool", network) == 3 * 8 * 9 * 256 + 8 * 4


def test_pruning_keeps_about_the_share_of_the_macs_that_is_asked_for(gated, network):
    whole = macs.count(gated.model, gated.input)
    change = change_of("prune_channels", step("prune_channels", macs=0.25), network)
    dense = change.pieces["blocks_1_conv"][0]
    assert (dense.inputs, dense.outputs) == (8, 8)
    assert change.pieces["stem"][0].inputs == 3
    assert macs_after("prune_channels", network, macs=0.25) < 0.6 * whole


class Norms(nn.Module):
    """Norms behind their convolution, behind an activation and a pooling, and one that must stay."""

    def __init__(self):
        super().__init__()
        self.stem, self.first = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.wide, self.behind = nn.Conv2d(8, 8, 3), nn.BatchNorm2d(8)
        self.last, self.stays = nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.head = nn.Linear(8 * 4 * 4, 5)

    def forward(self, x):
        x = torch.relu(self.first(self.stem(x)))
        y = self.behind(torch.relu(self.wide(x)))
        x = self.stays(torch.relu(x)).mean((2, 3)).sum(1)
        return self.head(nn.functional.adaptive_avg_pool2d(y, 4).flatten(1)) + torch.sigmoid(x)[:, None]


def test_norms_are_foretold_to_go_where_the_step_folds_them():
    torch.manual_seed(0)
    net = Norms().eval()
    for norm in (net.first, net.behind, net.stays):
        norm.running_mean.uniform_(-1, 1)
    input = InputSpec(3, 16, 16)
    variant = Variant(capture.capture(net, input), input)
    network = network_of(variant)
    kept = {name: tensor.clone() for name, tensor in variant.model.state_dict().items()}
    change = change_of("fuse_conv_bn", step("fuse_conv_bn"), network)
    left = {node.name for node in made("fuse_conv_bn", variant).model.graph.nodes}
    norms = {name for name, layer in network.layers.items() if layer.kind == "batch norm"}
    assert set(change.scales) == norms - left
    assert len(change.scales) == 2
    assert change.weight_bytes == gathering.weight_bytes(made("fuse_conv_bn", variant).model)
    for name, tensor in variant.model.state_dict().items():
        assert torch.equal(tensor, kept[name])


def test_a_norm_behind_an_activation_is_foretold_to_be_folded_forwards():
    layers = (nn.Conv2d(3, 8, 3), nn.ReLU(), nn.BatchNorm2d(8), nn.MaxPool2d(2), nn.Flatten())
    input = InputSpec(3, 10, 10)
    net = nn.Sequential(*layers, nn.Linear(8 * 16, 4)).eval()
    network = network_of(Variant(capture.capture(net, input), input))
    found = predict("fuse_conv_bn", step("fuse_conv_bn"), network, ByMacs())
    assert (found.problem, found.note) == (None, "exact, no training")
    assert found.before_ms - found.after_ms == pytest.approx(0.1)


def test_time_bytes_and_training_follow_from_the_pieces(network):
    found = predict("depthwise_separable", step("depthwise_separable"), network, ByMacs())
    change = change_of("depthwise_separable", step("depthwise_separable"), network)
    changed = {node: network.pieces[node] for node in change.pieces}
    old = sum(piece.macs for piece in changed.values())
    new = sum(piece.macs for pieces in change.pieces.values() for piece in pieces)
    assert found.before_ms - found.after_ms == pytest.approx((old - new) / 1e6)
    assert found.training_before_ms / found.training_after_ms == pytest.approx(old / new)
    fewer = sum(piece.weights for piece in changed.values())
    fewer -= sum(piece.weights for pieces in change.pieces.values() for piece in pieces)
    assert found.before_bytes - found.after_bytes == 4 * fewer
    assert found.timed_share == 1.0


def test_int8_is_foretold_for_every_layer_that_multiplies(network):
    found = predict("quantize_int8", step("quantize_int8"), network, ByMacs())
    multiplying = sum(piece.macs for piece in network.pieces.values()) / 1e6
    assert found.runtime == "openvino"
    assert found.before_ms - found.after_ms == pytest.approx(0.75 * multiplying)
    weights = sum(piece.weights for piece in network.pieces.values())
    assert found.before_bytes - found.after_bytes == 3 * weights


def test_a_gain_that_is_none_is_said_with_what_the_time_is_spent_on(network):
    waiting = {
        name: dataclasses.replace(
            layer, kind="depthwise convolution", bound="memory", share=1 / len(network.layers)
        )
        for name, layer in network.layers.items()
    }
    found = predict(
        "quantize_int8", step("quantize_int8"), dataclasses.replace(network, layers=waiting), Slow()
    )
    assert found.verdict == (
        "INT8 not worth it for speed: 100 % of the time is memory-bound depthwise convolution"
    )


def test_of_several_kinds_that_wait_for_memory_the_largest_is_named(network):
    kinds = ["depthwise convolution", "activation"]
    waiting = {
        name: dataclasses.replace(layer, kind=kinds[at % 2], bound="memory", share=1 / len(network.layers))
        for at, (name, layer) in enumerate(network.layers.items())
    }
    known = dataclasses.replace(network, layers=waiting)
    found = predict("depthwise_separable", step("depthwise_separable"), known, Slow())
    assert found.verdict.startswith("not worth it for speed: 100 % of the time is memory-bound, most of it ")


def test_training_is_told_for_the_whole_network_and_changes_nothing_else(network):
    found = predict("finetune", step("finetune", epochs=10), network, ByMacs())
    whole = 3 * sum(piece.macs for piece in network.pieces.values()) / 1e6
    assert found.training_before_ms == found.training_after_ms == pytest.approx(whole)
    assert found.after_ms == found.before_ms
    assert found.after_bytes == found.before_bytes
    assert found.note.startswith("no faster and no smaller: it repairs accuracy; at least ")
    assert "for 1,000 pictures" in found.note
    (row,) = drawn.rows({"predictions": [found.as_json()]})
    words = dict(zip(drawn.HEADINGS, row, strict=True))
    assert (words["training"], words["epoch saved"], words["ms saved"]) == ("unchanged", "none", "none")
    assert words["weights saved"] == "none"


def test_savings_are_told_in_milliseconds_bytes_and_seconds_of_training(network):
    found = predict("depthwise_separable", step("depthwise_separable"), network, ByMacs())
    told = found.as_json()
    assert told["saved_ms"] == found.before_ms - found.after_ms > 0
    assert told["saved_bytes"] == found.before_bytes - found.after_bytes > 0
    assert told["saved_training_ms"] == found.training_before_ms - found.training_after_ms > 0
    fixed = {
        **told, "before_ms": 9.0, "after_ms": 6.5, "before_bytes": 5_000_000, "after_bytes": 1_000_000,
        "training_before_ms": 30.0, "training_after_ms": 20.0,
    }  # fmt: skip
    slower = {**fixed, "after_ms": 11.0, "after_bytes": 6_000_000, "training_after_ms": 42.0}
    wanted = {
        "ms": ("6.5", "11"), "ms saved": ("2.5", "−2.0"), "speed": ("1.4× faster", "1.2× slower"),
        "weights saved": ("4.00 MB", "−1.00 MB"), "weights": ("−80.0 %", "+20.0 %"),
        "epoch saved": ("10 s", "−12 s"), "training": ("1.5× faster", "1.4× slower"),
    }  # fmt: skip
    for at, one in enumerate((fixed, slower)):
        words = dict(zip(drawn.HEADINGS, drawn.rows({"predictions": [one]})[0], strict=True))
        assert {key: words[key] for key in wanted} == {key: value[at] for key, value in wanted.items()}


def test_changed_layers_without_time_for_training_are_taken_for_like_those_that_had_it(network):
    name = "depthwise_separable"

    class Once(ByMacs):
        """A clock that stops after the largest layer and what becomes of it."""

        left = 3

        def training_ms(self, piece):
            self.left -= 1
            return super().training_ms(piece) if self.left >= 0 else None

    told = [predict(name, step(name), network, clock) for clock in (ByMacs(), Once())]
    pieces = change_of(name, step(name), network).pieces
    assert len(pieces) > 1
    whole, extrapolated = (one.training_before_ms for one in told)
    assert whole == pytest.approx(3 * sum(network.pieces[node].macs for node in pieces) / 1e6)
    assert extrapolated == pytest.approx(whole)


def test_layers_without_time_for_training_are_taken_for_like_the_rest(network):
    first = max(network.pieces.values(), key=lambda piece: piece.macs)
    bench = Bench(threads=1, deadline=float("inf"))
    ms = bench.training_ms(first)
    bench.deadline = 0.0
    found = predict("finetune", step("finetune"), network, bench)
    whole = sum(piece.macs for piece in network.pieces.values())
    assert found.training_after_ms == pytest.approx(ms * whole / first.macs)


class Joined(nn.Module):
    """Two convolutions whose maps are joined, as in a DenseNet, and flattened."""

    def __init__(self):
        super().__init__()
        self.left, self.right = nn.Conv2d(3, 8, 1), nn.Conv2d(3, 8, 3, padding=1)
        self.head = nn.Linear(16 * 256, 5)

    def forward(self, x):
        return self.head(torch.cat([self.left(x), self.right(x)], 1).flatten(1))


def test_maps_that_are_joined_are_foretold_to_be_copied_elsewhere_too():
    input = InputSpec(3, 16, 16)
    network = network_of(Variant(capture.capture(Joined().eval(), input), input), "eager")
    found = predict("export_openvino", step("export_openvino"), network, ByMacs())
    multiplying = sum(piece.macs for piece in network.pieces.values()) / 1e6
    copied_bytes = 4 * 2 * 16 * 256
    assert found.before_ms == pytest.approx(multiplying + 0.2)
    assert found.after_ms == pytest.approx(multiplying + copied_bytes / 1e7)


@pytest.mark.parametrize(
    ("name", "runtime"), [("compile", "inductor"), ("export_aotinductor", "aotinductor")]
)
def test_compiled_code_is_foretold_from_its_layers(network, monkeypatch, name, runtime):
    monkeypatch.setenv("CXX", "c++")
    found = predict(name, step(name), network, ByMacs())
    assert (found.runtime, found.problem) == (runtime, None)
    assert 0 < found.after_ms <= found.before_ms
    assert found.after_bytes == found.before_bytes
    with pytest.raises(NotApplicable, match="already"):
        change_of(name, step(name), dataclasses.replace(network, runtime="inductor"))


def test_without_a_compiler_nothing_is_foretold_of_compiled_code(network, monkeypatch):
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setenv("PATH", "")
    found = predict("compile", step("compile"), network, ByMacs())
    assert found.problem == "there is no C++ compiler"


def test_an_export_that_is_no_faster_says_so(network):
    assert predict("export_onnx", step("export_onnx"), network, Slow()).verdict == "not worth it for speed"


def test_layers_that_the_runtime_merges_by_itself_are_no_gain(network):
    merged = {
        name: dataclasses.replace(layer, ms=0.0) if layer.kind == "batch norm" else layer
        for name, layer in network.layers.items()
    }
    found = predict(
        "fuse_conv_bn", step("fuse_conv_bn"), dataclasses.replace(network, layers=merged), ByMacs()
    )
    assert found.verdict == "no faster: openvino merges these layers by itself"


@pytest.mark.parametrize(
    "piece",
    [
        DENSE,
        dataclasses.replace(DENSE, outputs=16, groups=16),
        Piece(256, 128, (256,)),
        Piece(32, 8, (5, 32)),
    ],
)
def test_a_piece_in_a_frozen_graph_gives_what_its_module_gives(piece):
    torch.manual_seed(0)
    module = piece.module().eval()
    torch.manual_seed(0)
    with torch.inference_mode():
        found, wanted = packed.call_of(piece)(), module(random_batch(piece))
    assert torch.allclose(found, wanted, atol=1e-5)


def test_without_time_nothing_is_claimed(network):
    found = predict(
        "depthwise_separable", step("depthwise_separable"), network, Bench(threads=1, deadline=0.0)
    )
    assert found.after_ms is None
    assert found.timed_share == 0.0
    assert found.verdict == "no time left to time it"


def test_a_layer_that_is_too_large_to_be_timed_is_named_as_such():
    input = InputSpec(3, 64, 64)
    layers = nn.Sequential(nn.Flatten(), nn.Linear(3 * 64 * 64, 700))
    network = network_of(Variant(capture.capture(layers.eval(), input), input), "eager")
    bench = Bench(threads=1, deadline=float("inf"))
    found = predict("export_openvino", step("export_openvino"), network, bench)
    assert found.after_ms is None
    assert found.verdict == "a layer of 8.60 M weights is too large to be timed alone"


@pytest.mark.parametrize("runtime", ["openvino", "onnxruntime"])
def test_a_layer_that_a_runtime_refuses_comes_with_what_the_runtime_says(runtime):
    bench = Bench(threads=1, deadline=float("inf"))
    larger_than_its_input = Piece(8, 8, (8, 2, 2), kernel=(5, 5))
    assert bench.ms(larger_than_its_input, runtime) is None
    assert bench.untimed(larger_than_its_input, runtime).startswith("a layer could not be timed alone: ")


def test_every_step_is_foretold_or_says_why_not(network):
    steps = [(name, step(name)) for name in recipe.step_names()]
    found = predict_all(network, steps, threads=1, seconds=0.0)
    assert {one.step for one in found} == set(recipe.step_names())
    assert all(one.problem or one.after_bytes is not None for one in found)


class Plain(nn.Module):
    """Convolutions with norms and a large dense head on a flattened map: everything applies."""

    def __init__(self):
        super().__init__()
        self.first, self.norm = nn.Conv2d(3, 32, 3, padding=1), nn.BatchNorm2d(32)
        self.second = nn.Conv2d(32, 64, 3, padding=1)
        self.dense, self.head = nn.Linear(64 * 64, 128), nn.Linear(128, 10)

    def forward(self, x):
        x = torch.relu(self.norm(self.first(x)))
        x = nn.functional.max_pool2d(torch.relu(self.second(x)), 2)
        return self.head(torch.relu(self.dense(x.flatten(1))))


def predicted(network):
    """What a profile has of predictions, by a clock that knows MACs alone."""
    found = [predict(name, step(name), network, ByMacs()) for name in recipe.step_names()]
    totals = {"runtime": network.runtime}
    return {"totals": totals, "predictions": [dataclasses.asdict(one) for one in found]}


@pytest.fixture(scope="module")
def plain():
    input = InputSpec(3, 16, 16)
    return Variant(capture.capture(Plain().eval(), input), input)


@pytest.mark.parametrize("runtime", ["eager", "openvino", "onnxruntime"])
@pytest.mark.parametrize("which", ["gated", "plain"])
def test_the_lines_to_paste_are_recipes_that_can_be_run(which, runtime, request, tmp_path):
    found = predicted(network_of(request.getfixturevalue(which), runtime))
    saving = {one["step"]: one for one in found["predictions"] if one["problem"] is None}
    for objective, pasted in (("latency", pasting.for_speed(found)), ("size", pasting.for_size(found))):
        path = tmp_path / f"{objective}.yaml"
        path.write_text(f"description: pasted\n{pasted}\n")
        plan = recipe.load(str(path))
        names = [entry.name for entry in plan.entries]
        assert plan.objective == objective
        assert len(set(names)) == len(names)
        changed = [at for at, entry in enumerate(plan.entries) if entry.step.stage < Stage.TRAIN]
        assert changed == list(range(len(changed)))
        assert plan.entries[changed[-1]].trains
        assert sum(entry.step.quantizes for entry in plan.entries) == 1
        assert sum(entry.step.stage == Stage.EXPORT for entry in plan.entries) <= 2
        assert len({"depthwise_separable", "low_rank", "prune_channels"} & set(names)) <= 1
        assert set(names) <= {*saving, *recipe.EXPORTS.values()}
        if objective == "latency":
            ways = {name: saving[name]["after_ms"] for name in pasting.INT8}
            (chosen,) = set(ways) & set(names)
            assert ways[chosen] == min(ways.values())
            if chosen == "quantize_int8":
                assert recipe.EXPORTS[saving[chosen]["runtime"]] in names
        else:
            assert {"prune_weights", "cluster_weights", "quantize_weights"} < set(names)


@pytest.mark.parametrize("which", ["gated", "plain"])
def test_every_step_that_is_foretold_has_a_line_that_can_be_run_alone(which, request, tmp_path):
    found = predicted(network_of(request.getfixturevalue(which), "eager"))
    wanted = [one["step"] for one in found["predictions"] if one["problem"] is None]
    lines = pasting.each(found).splitlines()
    assert len(lines) == len(wanted) > 10
    assert "  - {depthwise_separable: {}, recover: {}}" in lines
    assert max(map(len, lines)) <= 80
    path = tmp_path / "one.yaml"
    for name, line in zip(wanted, lines, strict=True):
        path.write_text(f"description: pasted\nsteps:\n{line}\n")
        (entry,) = recipe.load(str(path)).entries
        assert entry.name == name
        assert (entry.recover is not None) == (entry.step.stage < Stage.TRAIN)


def test_nothing_is_pasted_where_nothing_is_saved(network):
    one = dataclasses.asdict(predict("depthwise_separable", step("depthwise_separable"), network, ByMacs()))
    dearer = {**one, "after_ms": one["before_ms"], "after_bytes": one["before_bytes"]}
    for told in ({"predictions": [dearer]}, {"predictions": []}, {"predictions": [{**one, "problem": "x"}]}):
        assert pasting.for_speed(told) == pasting.for_size(told) == ""


def test_the_settings_of_a_step_are_pasted_with_it(network):
    small = predict("reduce_resolution", step("reduce_resolution", scale=0.6), network, ByMacs())
    int4 = predict("quantize_weights", step("quantize_weights", bits=4), network, ByMacs())
    pruned = predict("prune_weights", step("prune_weights"), network, ByMacs())
    told = {"predictions": [dataclasses.asdict(one) for one in (small, int4, pruned)]}
    assert pasting.each(told).splitlines()[:2] == [
        "  - {reduce_resolution: {scale: 0.6}, recover: {}}",
        "  - quantize_weights: {bits: 4}",
    ]
    assert yaml.safe_load(pasting.for_speed(told)) == {
        "steps": [{"reduce_resolution": {"scale": 0.6}, "recover": {}}]
    }
    assert yaml.safe_load(pasting.for_size(told)) == {
        "objective": "size",
        "steps": ["prune_weights", {"quantize_weights": {"bits": 4, "preserve": ["sparsity"]}}],
    }


def test_a_small_picture_is_not_shrunk_by_the_recipe_either(network):
    small = dataclasses.asdict(predict("reduce_resolution", step("reduce_resolution"), network, ByMacs()))
    told = {"predictions": [small], "model": {"input": "3x32x32"}}
    assert pasting.for_speed(told) == ""
    assert "reduce_resolution" in pasting.for_speed({**told, "model": {"input": "3x64x96"}})


def test_steps_that_do_not_apply_say_why(network):
    with pytest.raises(NotApplicable, match="flattened"):
        change_of("global_average_pool", step("global_average_pool"), network)
    with pytest.raises(NotApplicable, match="already"):
        change_of("export_openvino", step("export_openvino"), network)


@pytest.mark.parametrize(
    ("module", "shape"),
    [
        (nn.Conv2d(6, 9, (3, 5), stride=(2, 1), padding=(0, 2), dilation=(1, 2), groups=3), (1, 6, 17, 19)),
        (nn.Linear(7, 4), (1, 5, 7)),
    ],
)
def test_a_piece_has_the_shape_and_cost_of_its_module(module, shape):
    piece = piece_of(module, shape)
    assert piece.output_shape == tuple(module(torch.zeros(shape)).shape[1:])
    assert piece.weights == module.weight.numel()
    assert piece.macs == piece.weights * int(np.prod(piece.output_shape)) // piece.outputs


@pytest.mark.parametrize("int8", [False, True])
@pytest.mark.parametrize(
    "piece", [DENSE, Piece(256, 128, (256,)), dataclasses.replace(DENSE, outputs=16, groups=16)]
)
def test_a_piece_is_a_model_that_runtimes_run(piece, int8):
    model = piece.onnx(int8=int8)
    onnx.checker.check_model(onnx.load_from_string(model))
    batch = np.ones((1, *piece.shape), np.float32)
    for runtime in ("onnxruntime", "openvino"):
        assert prepare_onnx(model, runtime, threads=1).predict(batch).shape == (1, *piece.output_shape)
    bench = Bench(threads=1, deadline=float("inf"))
    assert bench.ms(piece, "openvino", int8=int8) > 0
    assert bench.ms(piece, "onnxruntime", int8=int8) > 0


def test_a_piece_is_timed_once():
    bench = Bench(threads=1, deadline=float("inf"))
    first = bench.ms(DENSE, "eager"), bench.training_ms(DENSE)
    assert all(value > 0 for value in first)
    bench.deadline = 0.0
    assert (bench.ms(DENSE, "eager"), bench.training_ms(DENSE)) == first


@pytest.mark.parametrize("runtime", ["eager", "openvino"])
def test_a_step_is_foretold_before_it_is_tried(gated, runtime):
    network = beforehand.network_of(gated, runtime=runtime, threads=1)
    found = beforehand.foretell(network, "reduce_resolution", step("reduce_resolution", scale=0.5), threads=1)
    assert found.speedup == pytest.approx(found.before_ms / found.after_ms)
    assert found.runtime == runtime
    assert found.weight_bytes == found.before_bytes == network.weight_bytes
    assert 0 < found.timed_share <= 1


def test_what_cannot_be_foretold_is_left_open(gated):
    network = beforehand.network_of(gated, runtime="eager", threads=1)
    for name, reason in (
        ("global_average_pool", "flatten"),
        ("quantize_int8", "it is foretold in openvino and was compared in eager"),
    ):
        with pytest.raises(NotApplicable, match=reason):
            beforehand.foretell(network, name, step(name), threads=1)


def test_a_run_says_of_a_step_why_it_is_not_foretold(gated, tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("description: mine\nsteps: [finetune, fuse_conv_bn]\n")
    plan = recipe.load(str(path))
    context = Context(teacher=gated, data=None, workdir=tmp_path, threads=1, train_threads=1)
    bench = instruments.Instruments(plan, context, None)
    trained, fused = plan.entries
    with pytest.raises(NotApplicable, match="it changes neither time nor bytes"):
        bench.foretold(trained, bench.teacher)
    integers = instruments.Held(dataclasses.replace(gated, precision="int8"), 1)
    with pytest.raises(NotApplicable, match="the network is INT8 already"):
        bench.foretold(fused, integers)
    bench.yardstick = "inductor"
    with pytest.raises(NotApplicable, match="nothing is foretold in inductor"):
        bench.foretold(fused, bench.teacher)


def test_an_export_is_foretold_in_its_own_runtime(gated):
    network = beforehand.network_of(gated, runtime="eager", threads=1)
    found = beforehand.foretell(network, "export_onnx", step("export_onnx"), threads=1)
    assert found.runtime == "onnxruntime"
    assert found.after_ms > 0


def test_what_was_foretold_is_said_with_two_digits_and_why_it_is_no_gain():
    told = beforehand.Foretold(1.2345, 20, 10, 1.0, "openvino", 1.2, 1.0, None, None, "")
    assert str(told) == "foretold: 1.2×"
    waiting = "INT8 not worth it for speed: 71 % of the time is memory-bound depthwise convolution"
    assert str(dataclasses.replace(told, speedup=0.98, verdict=waiting)) == f"foretold: 0.98×, {waiting}"


def test_a_network_without_a_gradient_is_said_to_have_none(gated):
    fixed = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 4)).eval()
    model = capture.capture(fixed, gated.input)
    with model.graph.inserting_before(model.graph.output_node()):
        logits = model.graph.output_node().args[0]
        found = logits[0] if isinstance(logits, tuple | list) else logits
        rounded = model.graph.call_function(torch.ops.aten.detach.default, (found,))
    found.replace_all_uses_with(rounded, delete_user_cb=lambda user: user is not rounded)
    model.recompile()
    variant = dataclasses.replace(gated, model=model)
    with pytest.raises(NotApplicable, match="has no gradient"):
        training.gradients(variant, variant, threads=1)


def test_timing_gradients_leaves_both_networks_as_they_were(gated):
    both = gated, made("reduce_resolution", gated, scale=0.5)
    kept = [{name: value.clone() for name, value in one.model.state_dict().items()} for one in both]
    found = training.gradients(*both, threads=1)
    assert min(found.as_json().values()) > 0
    for one, values in zip(both, kept, strict=True):
        assert all(torch.equal(value, values[name]) for name, value in one.model.state_dict().items())
        assert all(parameter.grad is None for parameter in one.model.parameters())
