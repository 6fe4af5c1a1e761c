"""A training that is broken off at any step and gone on with: the same weights, bit for bit."""

import itertools

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.nn import functional

from slimcv import data as datasets
from slimcv.models import capture
from slimcv.step import Context, InputSpec, Variant
from slimcv.train import state as states
from slimcv.train.asking import Form
from slimcv.train.descent import Descent
from slimcv.train.feed import Feed, augmentation
from slimcv.train.live import Live
from slimcv.train.schedule import Allowance
from slimcv.train.settings import FinetuneSettings
from slimcv.train.training import Training

INPUT = InputSpec(3, 12, 12)
SETTINGS = FinetuneSettings(
    epochs=4, batch=8, lr=0.02, accumulate=3, ema=0.8, schedule="plateau", colour=0.2, shift=0.1
)


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
        nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Dropout2d(0.2), nn.Flatten(),
        nn.Dropout(0.3), nn.Linear(600, 2),
    )  # fmt: skip
    return capture.capture(net, INPUT)


def training(network, data, settings, *, teaching=None, seed=0):
    model = capture.copy(network)
    model.to(memory_format=torch.channels_last)
    return Training(
        model,
        Feed(data.train, INPUT, settings, teaching=teaching, seed=seed),
        data.tuning,
        INPUT,
        descent=Descent(model, settings, precision="fp32"),
        settings=settings,
        allowance=Allowance(None, None),
        seed=seed,
    )


def to_the_end(under_way):
    while not under_way.stopped:
        under_way.advance()
    return under_way


def outcome(done):
    losses = [(epoch.loss, epoch.tuning_loss, epoch.averaged_loss, epoch.lr) for epoch in done.history]
    return losses, done.best.epoch, done.best.averaged, done.stopped


def equal(first, second):
    return all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize(
    "settings", [SETTINGS, SETTINGS.model_copy(update={"steps_per_call": 2, "fused_optimizer": False})]
)
def test_broken_off_after_any_step_it_ends_with_the_weights_of_an_unbroken_one(
    network, data, tmp_path, settings
):
    unbroken = to_the_end(training(network, data, settings))
    assert unbroken.best.epoch
    for calls in (1, 2, 4, 5, 7, 11):
        first = training(network, data, settings)
        for _ in itertools.repeat(None, calls):
            first.advance()
        states.write(tmp_path, first.state())
        torch.rand(calls)
        second = training(network, data, settings)
        second.resume(states.read(tmp_path))
        assert (second.epoch, second.step) == (first.epoch, first.step)
        to_the_end(second)
        assert outcome(second) == outcome(unbroken)
        assert equal(second.best.weights, unbroken.best.weights)
        assert equal(second._model.state_dict(), unbroken._model.state_dict())


def test_a_fused_optimizer_gives_the_weights_of_one_that_is_not_up_to_rounding(network, data):
    fused, unfused = (
        to_the_end(training(network, data, SETTINGS.model_copy(update={"fused_optimizer": fused})))
        for fused in (True, False)
    )
    assert [done._descent.optimizer.defaults["fused"] for done in (fused, unfused)] == [True, False]
    for first, second in zip(fused.history, unfused.history, strict=True):
        assert second.loss == (first.loss and pytest.approx(first.loss, rel=1e-3))
    assert fused.best.epoch == unfused.best.epoch > 0
    for name, value in unfused.best.weights.items():
        # The gradient of a bias before BatchNorm is all rounding, which Adam makes as large as any other.
        if name not in ("0.bias", "1.running_mean"):
            torch.testing.assert_close(fused.best.weights[name], value, rtol=1e-2, atol=1e-4)


def test_the_random_state_matters_to_these_networks(network, data):
    first, second = (to_the_end(training(network, data, SETTINGS, seed=seed)) for seed in (0, 1))
    assert not equal(first.best.weights, second.best.weights)


def test_the_state_of_a_training_that_is_done_holds_no_more_than_the_best_weights(network, data, tmp_path):
    done = to_the_end(training(network, data, SETTINGS))
    states.write(tmp_path, done.state())
    again = training(network, data, SETTINGS)
    again.resume(states.read(tmp_path))
    assert again.stopped == "all epochs done"
    assert outcome(again) == outcome(done)
    assert equal(again.best.weights, done.best.weights)
    assert {name.split("/")[0] for name in done.state().tensors} == {"best"}


def test_every_picture_is_seen_once_an_epoch_in_batches_as_large_as_each_other(data):
    feed = Feed(data.train, INPUT, SETTINGS, teaching=None, seed=0)
    counts = [len(batch.labels) for batch in feed.epoch(1)]
    assert sum(counts) == feed.count == len(data.train)
    assert set(counts) == set(feed.sizes)
    assert len(counts) == feed.steps


def test_a_feed_begun_in_the_middle_gives_the_batches_of_a_whole_one(data):
    feed = Feed(data.train, INPUT, SETTINGS, teaching=None, seed=3)
    whole = list(feed.epoch(2))
    for first in (1, 4):
        for one, other in zip(whole[first:], feed.epoch(2, first=first), strict=True):
            assert torch.equal(one.pictures, other.pictures)
            assert torch.equal(one.labels, other.labels)


def test_a_live_teacher_of_any_size_is_asked_about_the_picture_the_student_sees(data, tmp_path):
    settings = FinetuneSettings(batch=16, crop=0.5, shift=0.2, colour=0.3)
    for input in (INPUT, InputSpec(3, 24, 24)):
        seen = []

        def predict(pixels, seen=seen):
            seen.append(torch.from_numpy(pixels.copy()))
            return np.zeros((len(pixels), 2), np.float32)

        context = Context(Variant(None, input), data, tmp_path, threads=1, train_threads=1)
        form = Form("PyTorch", predict, 0.0)
        live = Live(context, data.train, augmentation(settings), form=form, same_size=input == INPUT)
        seen.clear()
        batch = next(Feed(data.train, INPUT, settings, teaching=live, seed=0).epoch(1))
        own = batch.pictures * torch.tensor(INPUT.std).view(3, 1, 1) + torch.tensor(INPUT.mean).view(3, 1, 1)
        asked = torch.cat(seen).permute(0, 3, 1, 2).float()
        asked = functional.interpolate(asked, (12, 12), mode="area")
        assert torch.corrcoef(torch.stack([own.flatten(), asked.flatten()]))[0, 1] > 0.7
        assert live.asked == len(batch.labels) + min(256, len(data.train))
