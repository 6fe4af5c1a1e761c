"""Decoupling dense convolutions and fitting the pairs."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from slimcv.models import capture
from slimcv.step import InputSpec
from slimcv.surgery import convertible, decouple, insert_norms, make_separable, reconstruct
from slimcv.surgery.reconstruction import sample_patches

INPUT = InputSpec(3, 16, 16)


def network() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 16, 3, stride=2, padding=1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 5),
    )  # fmt: skip


def chosen(model, rank=1):
    return [node for node, _ in convertible(model, rank=rank, min_channels=1, include=["*"], exclude=[])]


def smooth(count: int, seed: int) -> torch.Tensor:
    """Pictures whose neighbouring pixels are alike, as in photographs."""
    noise = torch.randn(count, 3, 5, 5, generator=torch.Generator().manual_seed(seed))
    return functional.interpolate(noise, size=(16, 16), mode="bicubic")


def test_at_full_rank_the_factors_multiply_to_the_dense_weight():
    weight = torch.randn(12, 5, 3, 3)
    depthwise, pointwise = decouple(weight, 9)
    product = torch.einsum("rcij,orc->ocij", depthwise, pointwise)
    torch.testing.assert_close(product, weight, rtol=1e-5, atol=1e-5)


def test_a_lower_rank_is_nearer_to_the_weight_than_none_and_farther_than_a_higher_one():
    weight = torch.randn(12, 5, 3, 3)
    errors = []
    for rank in (1, 2, 4):
        depthwise, pointwise = decouple(weight, rank)
        errors.append(float((torch.einsum("rcij,orc->ocij", depthwise, pointwise) - weight).norm()))
    assert float(weight.norm()) > errors[0] > errors[1] > errors[2]


@pytest.mark.parametrize("rank", [1, 2])
def test_kernels_of_that_rank_are_carried_over_exactly(rank):
    module = network()
    for conv in (module[0], module[2]):
        shape = conv.weight.shape
        factors = torch.randn(rank, shape[1], *shape[2:]), torch.randn(shape[0], rank, shape[1]) / 4
        conv.weight.data = torch.einsum("rcij,orc->ocij", *factors)
    model = capture.capture(module, INPUT)
    with torch.no_grad():
        before = model(capture.example(INPUT))
        make_separable(model, chosen(model), rank=rank)
        torch.testing.assert_close(model(capture.example(INPUT)), before, rtol=1e-4, atol=1e-5)


def test_a_pair_keeps_the_geometry_of_its_convolution():
    conv = nn.Conv2d(4, 8, (3, 5), stride=(2, 1), padding=(1, 4), dilation=(1, 2))
    model = capture.capture(
        nn.Sequential(nn.Conv2d(3, 4, 1), conv, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5)), INPUT
    )
    before = capture.shapes(model, INPUT)["_1"]
    (conversion,) = make_separable(model, chosen(model), rank=15)
    after = capture.shapes(model, INPUT)
    assert after[next(node.name for node in model.graph.nodes if node.target == "1.pointwise")] == before
    assert len(conversion.depthwise) == 8
    assert all(part.groups == 4 and part.bias is None for part in conversion.depthwise)


def test_layers_that_would_not_become_cheaper_or_are_not_asked_for_are_left():
    module = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 1), nn.Conv2d(8, 8, 3, groups=8), nn.Conv2d(8, 1, 3),
        nn.Conv2d(1, 16, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 5),
    )  # fmt: skip
    model = capture.capture(module, INPUT)

    def names(rank=1, min_channels=1, include=("*",), exclude=()):
        found = convertible(model, rank=rank, min_channels=min_channels, include=include, exclude=exclude)
        return [node.target for node, _ in found]

    assert names() == ["0", "4"]
    assert names(min_channels=2) == ["0"]
    assert names(include=["[1-9]*"]) == ["4"]
    assert names(exclude=["4"]) == ["0"]
    assert names(rank=9) == []


def test_patches_times_kernel_are_what_the_convolution_gives():
    conv = nn.Conv2d(3, 4, 3, stride=2, padding=1, dilation=2, bias=False)
    x = torch.randn(2, 3, 11, 9)
    with torch.no_grad():
        y = conv(x)
        for count in (7, 1000):
            patches, values = sample_patches(conv, x, y, count=count, generator=torch.Generator())
            assert len(patches) == min(count, y.numel() // 4)
            torch.testing.assert_close(torch.einsum("nct,oct->no", patches, conv.weight.flatten(2)), values)


@pytest.mark.parametrize("rank", [1, 2])
def test_fitting_brings_held_out_outputs_nearer_to_the_originals(rank):
    original = capture.capture(network(), INPUT)
    errors = []
    for rounds in (None, 0, 2):
        model = capture.copy(original)
        conversions = make_separable(model, chosen(model, rank), rank=rank)
        if rounds is not None:
            batches = list(smooth(32, 1).split(8))
            fits = reconstruct(
                original, model, conversions=conversions, batches=batches, rounds=rounds, seed=0
            )
            assert [fit.name for fit in fits] == ["0", "2"]
            assert all(fit.fitted < fit.carried for fit in fits)
        with torch.no_grad():
            held_out = smooth(32, 2)
            errors.append(float((model(held_out) - original(held_out)).norm()))
    assert errors[0] > errors[1] > errors[2]


@pytest.mark.parametrize("exact", [True, False])
def test_the_statistics_of_a_norm_move_as_much_as_its_inputs_did(exact):
    conv, norm = nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
    if exact:
        conv.weight.data = torch.einsum("cij,oc->ocij", torch.randn(3, 3, 3), torch.randn(8, 3))
    original = capture.capture(
        nn.Sequential(conv, norm, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5)), INPUT
    )
    model = capture.copy(original)
    conversions = make_separable(model, chosen(model), rank=1)
    reconstruct(original, model, conversions=conversions, batches=[smooth(32, 1)], rounds=0, seed=0)
    moved = float((model.get_submodule("1").running_var - 1).abs().max())
    assert (moved < 1e-3) == exact


def test_norms_inserted_after_pairs_change_nothing_until_training():
    model = capture.capture(network(), INPUT)
    conversions = make_separable(model, chosen(model), rank=1)
    x = smooth(8, 1)
    with torch.no_grad():
        before = model(x)
        assert insert_norms(model, conversions=conversions, batches=[x]) == 2
        torch.testing.assert_close(model(x), before, rtol=1e-4, atol=1e-5)
        capture.set_training(model, True)
        torch.testing.assert_close(model(x), before, rtol=1e-2, atol=1e-3)
