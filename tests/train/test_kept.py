"""What training leaves in the weights: zeros and shared values, also in averages and after interruptions."""

import itertools

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from slimcv import data as datasets
from slimcv.models import capture
from slimcv.step import InputSpec
from slimcv.surgery import magnitude, sharing
from slimcv.train import pruning
from slimcv.train import state as states
from slimcv.train.descent import Descent
from slimcv.train.feed import Feed
from slimcv.train.kept import Kept
from slimcv.train.pruning import PruningSettings
from slimcv.train.schedule import Allowance
from slimcv.train.settings import FinetuneSettings
from slimcv.train.training import Training

INPUT = InputSpec(3, 12, 12)
CALM = {"epochs": 4, "batch": 8, "lr": 0.02, "ema": 0.8, "accumulate": 2}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    random = np.random.default_rng(0)
    folder = tmp_path_factory.mktemp("pictures")
    for channel, name in enumerate(("a", "b")):
        (folder / name).mkdir()
        for number in range(30):
            pixels = random.integers(0, 200, (12, 12, 3), dtype=np.uint8)
            pixels[..., channel] += 50
            Image.fromarray(pixels).save(folder / name / f"{number}.png")
    return datasets.load(str(folder), cache=tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU(), nn.Flatten(),
        nn.Linear(512, 2),
    )  # fmt: skip
    return capture.capture(net, INPUT)


def kernels(model):
    return {name: weight for name, weight in model.named_parameters() if weight.ndim > 1}


def slimmed(network, *, share=0.5, clusters=8):
    model = capture.copy(network)
    magnitude.prune(list(kernels(model).values()), share=share, block=(1, 1), together=False)
    for weight in kernels(model).values():
        assert sharing.share(weight, clusters, initial="density", keep_zeros=True, seed=0)
    return model


def training(network, data, settings):
    model = capture.copy(network)
    model.to(memory_format=torch.channels_last)
    return Training(
        model,
        Feed(data.train, INPUT, settings, teaching=None, seed=0),
        data.tuning,
        INPUT,
        descent=Descent(model, settings, precision="fp32"),
        settings=settings,
        allowance=Allowance(None, None),
        seed=0,
    )


def to_the_end(under_way):
    while not under_way.stopped:
        under_way.advance()
    return under_way


def same(first, second):
    return all(torch.equal(first[name], second[name]) for name in first)


def test_zeros_and_shared_values_stay_after_every_step_and_in_the_average(network, data):
    begun = kernels(slimmed(network))
    under_way = training(slimmed(network), data, FinetuneSettings(**CALM))
    average = under_way._descent.average
    while not under_way.stopped:
        under_way.advance()
        for weights in (kernels(under_way._model), average.weights, under_way.best.weights):
            for name, before in begun.items():
                assert torch.equal(weights[name] == 0, before == 0)
                for value in before.unique():
                    assert len(weights[name][before == value].unique()) == 1
    assert not same(kernels(under_way._model), begun), "it has learnt all the same"
    assert under_way.best.epoch


def test_without_preserve_both_are_lost(network, data):
    done = to_the_end(training(slimmed(network), data, FinetuneSettings(**CALM, preserve=[])))
    for weight in kernels(done._model).values():
        assert magnitude.sparsity([weight]) < 0.1
        assert not sharing.is_shared(weight)


def test_zeros_alone_can_be_kept(network, data):
    begun = kernels(slimmed(network))
    done = to_the_end(training(slimmed(network), data, FinetuneSettings(**CALM, preserve=["sparsity"])))
    for name, weight in kernels(done._model).items():
        assert torch.equal(weight == 0, begun[name] == 0)
        assert not sharing.is_shared(weight)


def test_an_ordinary_network_is_trained_as_before(network, data):
    kept, free = (
        to_the_end(training(network, data, FinetuneSettings(**CALM, preserve=preserve)))
        for preserve in ("auto", [])
    )
    assert same(kept._model.state_dict(), free._model.state_dict())


def test_the_gradient_of_a_shared_value_is_the_sum_over_its_weights():
    layer = nn.Linear(8, 8, bias=False)
    codebook, index = torch.tensor([-1.0, 0.5, 2.0]), torch.randint(3, (8, 8))
    with torch.no_grad():
        layer.weight.copy_(codebook[index])
    values = codebook.clone().requires_grad_()
    pictures = torch.randn(5, 8)
    (pictures @ values[index].t()).square().sum().backward()
    layer(pictures).square().sum().backward()
    graph = torch.fx.Graph()
    graph.output(graph.call_module("layer", (graph.placeholder("x"),)))
    kept = Kept(torch.fx.GraphModule({"layer": layer}, graph), FinetuneSettings())
    kept.before_update()
    counts = torch.bincount(index.flatten())
    expected = (values.grad / counts.sqrt())[index]
    torch.testing.assert_close(layer.weight.grad, expected)
    assert float(layer.weight.grad.norm()) == pytest.approx(float(values.grad.norm()), rel=1e-5)


def test_a_layer_that_begins_with_zeros_is_trained_weight_by_weight(network, data):
    begun = capture.copy(network)
    with torch.no_grad():
        begun.get_parameter("6.weight").zero_()
    kept, free = (
        to_the_end(training(begun, data, FinetuneSettings(**CALM, preserve=preserve)))
        for preserve in ("auto", [])
    )
    assert same(kept._model.state_dict(), free._model.state_dict())
    assert len(kept._model.get_parameter("6.weight").unique()) > 100


GRADUAL = PruningSettings(**CALM, sparsity=0.8, until=0.5)


def test_zeros_come_by_the_polynomial_schedule_and_stay(network, data):
    under_way = training(network, data, GRADUAL)
    seen, before = [], {name: weight == 0 for name, weight in kernels(network).items()}
    while not under_way.stopped:
        under_way.advance()
        now = {name: weight == 0 for name, weight in kernels(under_way._model).items()}
        assert all(bool((now[name] | ~before[name]).all()) for name in now)
        before = now
        seen.append(magnitude.sparsity(list(kernels(under_way._model).values())))
    assert seen == sorted(seen)
    assert seen[0] < 0.1
    assert 0.45 < seen[len(seen) // 4] < 0.75, "half of the time has brought most of them"
    for weights in (kernels(under_way._model), under_way.best.weights, under_way._descent.average.weights):
        chosen = [weights[name] for name in kernels(network)]
        assert magnitude.sparsity(chosen) == pytest.approx(0.8, abs=1e-3)
    assert under_way.best.epoch >= 2


@pytest.mark.parametrize("pattern", ["2:4", "1x4"])
def test_patterns_stay_too(network, data, pattern):
    settings = PruningSettings(**CALM, pattern=pattern, sparsity=0.5)
    done = to_the_end(training(network, data, settings))
    matrix = done.best.weights["3.weight"].movedim(1, -1).flatten(1)
    zeros = (matrix.reshape(-1, 4) == 0).sum(dim=1)
    assert bool((zeros == 2).all() if pattern == "2:4" else ((zeros == 0) | (zeros == 4)).all())


@pytest.mark.parametrize("kind", ["gradual", "kept"])
def test_broken_off_anywhere_it_ends_with_the_weights_of_an_unbroken_one(network, data, tmp_path, kind):
    begun = network if kind == "gradual" else slimmed(network)
    settings = GRADUAL if kind == "gradual" else FinetuneSettings(**CALM)
    unbroken = to_the_end(training(begun, data, settings))
    for calls in (1, 3, 8, 17):
        first = training(begun, data, settings)
        for _ in itertools.repeat(None, calls):
            first.advance()
        states.write(tmp_path, first.state())
        second = training(begun, data, settings)
        second.resume(states.read(tmp_path))
        to_the_end(second)
        assert (second.best.epoch, second.best.averaged) == (unbroken.best.epoch, unbroken.best.averaged)
        assert same(second.best.weights, unbroken.best.weights)
        assert same(second._model.state_dict(), unbroken._model.state_dict())


def test_settings_come_to_another_process_as_what_they_were():
    for settings in (GRADUAL, PruningSettings(pattern="1:4"), FinetuneSettings(preserve=["clusters"])):
        again = pruning.settings(settings.model_dump(mode="json"))
        assert (type(again), again) == (type(settings), settings)
