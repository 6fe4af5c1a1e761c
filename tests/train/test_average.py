"""Copies of weights, their running average, and denormal weights."""

import pytest
import torch

from slimcv.train.average import RunningAverage, restore, snapshot, without_denormals


def test_a_snapshot_is_not_changed_by_training_and_can_be_restored():
    model = torch.nn.Linear(2, 2)
    before = model.weight.detach().clone()
    kept = snapshot(model)
    with torch.no_grad():
        model.weight.zero_()
    restore(model, kept)
    assert torch.equal(model.weight, before)


def test_the_running_average_of_few_steps_is_their_mean():
    model = torch.nn.Linear(1, 1)
    average = RunningAverage(model, 0.999)
    for value in (1.0, 2.0, 6.0):
        with torch.no_grad():
            model.weight.fill_(value)
        average.update()
    assert float(average.weights["weight"]) == pytest.approx(3, rel=2e-3)
    assert not average.settled


def test_denormal_weights_become_zero():
    model = torch.nn.Linear(2, 1, bias=False)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[1e-38, 0.5]]))
    without_denormals(model)
    assert model.weight.tolist() == [[0.0, 0.5]]
