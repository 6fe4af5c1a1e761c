"""The rest of a network run with one layer changed is the whole network run so, to the last bit."""

import copy

import pytest
import torch

from slimcv.sensitivity import effect
from slimcv.sensitivity.walk import Walk

BATCHES = [torch.randn(3, 3, 12, 12), torch.randn(2, 3, 12, 12)]


def test_with_nothing_changed_outputs_are_the_same_and_sqnr_is_infinite(model):
    walk = Walk(model, measured=BATCHES, fitted=BATCHES)
    for node, layer in walk.layers:
        found = effect(walk.outputs_with(node, copy.deepcopy(layer)), walk.expected)
        assert (found.error, found.sqnr_db) == (0.0, None)


def test_the_rest_of_the_network_gives_exactly_what_the_whole_does(model):
    walk = Walk(model, measured=BATCHES, fitted=BATCHES)
    assert [str(node.target) for node, _ in walk.layers] == ["stem", "shared", "depthwise", "widen", "head"]
    for node, layer in walk.layers:
        changed = copy.deepcopy(layer)
        with torch.no_grad():
            changed.weight.mul_(0.9)
            whole = copy.deepcopy(model)
            whole.set_submodule(str(node.target), changed)
            wanted = torch.cat([whole(batch) for batch in BATCHES])
        assert torch.equal(walk.outputs_with(node, changed), wanted), node.target
        assert not torch.equal(wanted, walk.expected), node.target


def test_a_layer_reads_the_same_of_both_sets_where_they_are_the_same(model):
    apart = Walk(model, measured=BATCHES[:1], fitted=BATCHES[1:])
    node, layer = apart.layers[1]
    assert not apart.called_once(node)
    assert [len(batch) for batch in apart.given(node)] == [2]
    assert len(apart.outputs_with(node, layer)) == 3


def test_a_change_of_a_tenth_is_twenty_decibels():
    expected = torch.tensor([[3.0, 4.0]])
    found = effect(expected + torch.tensor([[0.3, 0.4]]), expected, torch.tensor([1]))
    assert found.sqnr_db == pytest.approx(20.0, abs=1e-4)
    assert found.error == pytest.approx(0.1, abs=1e-6)
    assert found.top1_drop == 0.0


def test_outputs_that_are_no_numbers_have_no_sqnr_and_are_wrong():
    found = effect(torch.full((1, 2), torch.nan), torch.tensor([[0.0, 1.0]]), torch.tensor([1]))
    assert (found.error, found.sqnr_db, found.top1_drop) == (None, None, 100.0)
