"""Two profiles side by side: layers find what was made of them by their names."""

import json
import re

import pytest

from slimcv.profile.difference import difference, pairs
from slimcv.report.difference import render_difference


def layer(name, *, node=None, kind="3×3 convolution", ms=1.0, macs=100, parameters=10):
    return {
        "name": name,
        "node": node or name.replace(".", "_"),
        "kind": kind,
        "ms": ms,
        "macs": macs,
        "parameters": parameters,
    }


def found(*layers, runtime="eager"):
    totals = {
        "runtime": runtime,
        "layers_ms": sum(one["ms"] for one in layers),
        "macs": sum(one["macs"] for one in layers),
        "parameters": sum(one["parameters"] for one in layers),
    }
    return {"model": {"name": "net", "input": "3x8x8"}, "totals": totals, "layers": list(layers)}


@pytest.fixture
def pair():
    relu = layer("relu", node="relu", kind="activation", ms=0.5, macs=0, parameters=0)
    before = found(layer("a.conv", ms=4.0), relu, layer("a.fc", kind="linear"))
    after = found(
        layer("a.conv.depthwise", kind="depthwise convolution", ms=0.5, macs=9),
        layer("a.conv.pointwise", kind="pointwise convolution", ms=0.5, macs=11),
        dict(relu, name="relu_7", node="relu_7", ms=0.25),
        layer("a.extra"),
    )
    return before, after


def test_what_was_made_of_a_layer_stands_beside_it(pair):
    by_name = {one.name: one for one in difference(*pair).layers}
    assert (by_name["a.conv"].before.ms, by_name["a.conv"].after.ms) == (4.0, 1.0)
    assert by_name["a.conv"].after.macs == 20
    assert by_name["a.conv"].after.kinds == ("depthwise convolution", "pointwise convolution")


def test_what_was_made_of_a_layer_at_the_top_of_a_network_stands_beside_it_too():
    made = (layer("conv1.depthwise", ms=0.5), layer("conv1.pointwise", ms=0.25))
    (pair,) = pairs([layer("conv1", node="conv1", ms=4.0)], made)
    assert (pair.name, pair.before.ms, pair.after.ms) == ("conv1", 4.0, 0.75)


def test_operators_are_gathered_by_kind_and_lone_layers_stay(pair):
    by_name = {one.name: one for one in difference(*pair).layers}
    assert (by_name["(activation)"].before.ms, by_name["(activation)"].after.ms) == (0.5, 0.25)
    assert by_name["a.fc"].after is None
    assert by_name["a.extra"].before is None


def test_nothing_is_lost_or_counted_twice(pair):
    layers = difference(*pair).layers
    for side, profile in zip(("before", "after"), pair, strict=True):
        costs = [getattr(one, side) for one in layers if getattr(one, side) is not None]
        assert sum(cost.ms for cost in costs) == pytest.approx(profile["totals"]["layers_ms"])
        assert sum(cost.macs for cost in costs) == profile["totals"]["macs"]


def test_the_table_says_what_is_new_gone_and_faster(pair):
    values = difference(*pair).as_json()
    text = render_difference(values, "markdown", colour=False)
    assert "4× faster" in text or "4.0× faster" in text
    assert "gone" in text
    assert "new" in text
    assert json.loads(render_difference(values, "json", colour=False))["layers"][0]["name"] == "a.conv"
    drawn = render_difference(values, "text", colour=False)
    assert max(map(len, drawn.splitlines())) <= 80
    assert re.search(r"\d× ", drawn), "times faster"


def test_names_of_blocks_stay_apart_in_the_terminal():
    cost = {"ms": 0.111, "macs": 2_360_000, "parameters": 36_900, "kinds": ["convolution"]}
    names = [
        f"layer{stage}.{block}.conv{number}" for stage in (1, 2) for block in (0, 1) for number in (1, 2)
    ]
    totals = {"layers_ms": 0.9, "macs": 1_000, "parameters": 10, "runtime": "eager", "precision": "fp32"}
    values = {
        "models": [{"name": "a", "input": "3x32x32"}, {"name": "b", "input": "3x32x32"}],
        "totals": [totals, totals],
        "layers": [{"name": name, "before": cost, "after": cost} for name in names],
    }
    drawn = render_difference(values, "text", colour=False)
    assert all(name in drawn for name in names)
    assert max(map(len, drawn.splitlines())) <= 80
