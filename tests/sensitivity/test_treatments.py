"""Each treatment does to one layer what its step does, and says why where it does not apply."""

import pytest
import torch
from torch import nn

from slimcv.errors import NotApplicable
from slimcv.sensitivity import treatments
from slimcv.sensitivity.cost import in_turns, packed_bytes
from slimcv.sensitivity.walk import Walk

BY_KEY = {one.key: one for one in treatments(levels=63)}
BATCHES = [torch.randn(4, 3, 12, 12), torch.randn(4, 3, 12, 12)]
CONV = nn.Conv2d(16, 32, 3, padding=1)
GIVEN = [torch.randn(4, 16, 9, 9), torch.randn(4, 16, 9, 9)]


def changed(key, layer=CONV, given=GIVEN):
    with torch.no_grad():
        return BY_KEY[key].apply(layer, given, 0)


@pytest.mark.parametrize("key", BY_KEY)
def test_the_layer_itself_is_left_alone(key):
    layer = nn.Linear(40, 64)
    before = [parameter.clone() for parameter in layer.parameters()]
    try:
        changed(key, layer, [torch.randn(8, 40), torch.randn(8, 40)])
    except NotApplicable:
        assert key == "depthwise_separable"
    after = list(layer.parameters())
    assert all(torch.equal(was, now) for was, now in zip(before, after, strict=True))


def test_half_of_the_weights_are_zero_and_take_fewer_bytes():
    made = changed("prune_50")
    assert int((made.module.weight == 0).sum()) == CONV.weight.numel() // 2
    assert packed_bytes(made.stored) < 0.7 * packed_bytes(CONV.parameters())


def test_sixteen_values_take_about_half_a_byte_a_weight():
    made = changed("cluster_16")
    assert len(torch.unique(made.module.weight)) == 16
    assert packed_bytes(made.stored) < 0.65 * CONV.weight.numel()


def test_integers_take_a_byte_a_weight_and_stay_within_their_levels():
    made = changed("int8")
    integers = made.stored[0]
    assert integers.dtype == torch.int8
    assert int(integers.min()) >= -64
    assert int(integers.max()) <= 63
    assert packed_bytes(made.stored) < 1.2 * CONV.weight.numel()


@pytest.mark.parametrize(
    ("layer", "x"),
    [
        (CONV, GIVEN[0]),
        (nn.Conv2d(16, 16, 3, stride=2, groups=16, bias=False), GIVEN[0]),
        (nn.Linear(40, 64), torch.randn(4, 40)),
    ],
)
def test_the_kernel_that_is_timed_computes_what_the_rounded_layer_does(layer, x):
    made = changed("int8", layer, [x])
    found = made.timed(x[:1])()
    assert found.dtype == torch.uint8
    with torch.no_grad():
        wanted = made.module(x[:1])
    low, high = min(0.0, float(wanted.min())), max(0.0, float(wanted.max()))
    step = (high - low) / 255
    answers = (found.float() - round(-low / step)) * step
    assert float((answers - wanted).abs().max()) <= 1.01 * step


def test_half_the_rank_is_two_layers_with_fewer_weights():
    layer = nn.Linear(40, 64)
    made = changed("rank_half", layer, [torch.randn(64, 40), torch.randn(64, 40)])
    assert [tuple(part.weight.shape) for part in made.module] == [(20, 40), (64, 20)]


def test_the_separable_pair_fits_the_layer_better_than_nothing():
    made = changed("depthwise_separable")
    fresh = torch.randn(4, 16, 9, 9)
    with torch.no_grad():
        wanted = CONV(fresh)
        assert float((made.module(fresh) - wanted).norm()) < 0.95 * float(wanted.norm())
    assert made.module.depthwise.groups == 16


@pytest.mark.parametrize(
    ("key", "layer", "reason"),
    [
        ("rank_half", nn.Conv2d(4, 4, 3), "1×1"),
        ("rank_half", nn.Linear(16, 16), "no fewer weights"),
        ("depthwise_separable", nn.Linear(16, 16), "no convolution"),
        ("depthwise_separable", nn.Conv2d(4, 8, 1), "pointwise already"),
        ("depthwise_separable", nn.Conv2d(4, 8, 3, groups=2), "groups already"),
        ("depthwise_separable", nn.Conv2d(4, 1, 3), "no fewer MACs"),
        ("cluster_16", nn.Linear(2, 2), "too few weights"),
    ],
)
def test_where_a_treatment_does_not_apply_it_says_why(key, layer, reason):
    channels = layer.weight.shape[1] * getattr(layer, "groups", 1)
    shape = (2, channels) if isinstance(layer, nn.Linear) else (2, channels, 5, 5)
    with pytest.raises(NotApplicable, match=reason):
        changed(key, layer, [torch.randn(shape)])


def test_a_layer_called_twice_is_not_restructured(model):
    walk = Walk(model, measured=BATCHES, fitted=BATCHES)
    node, layer = walk.layers[1]
    with pytest.raises(NotApplicable, match="more than once"):
        BY_KEY["rank_half"].change(walk, node, layer, seed=0)


def test_a_call_that_does_more_takes_longer():
    x = torch.randn(1, 64, 32, 32)
    little, much = nn.Conv2d(64, 1, 1), nn.Conv2d(64, 256, 5)
    before, after = in_turns(lambda: much(x), lambda: little(x), threads=1)
    assert before > after > 0
