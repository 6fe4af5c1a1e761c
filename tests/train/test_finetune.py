"""The fine-tuning loop: it learns, repeats itself, keeps to its time, and gives back the best weights."""

import dataclasses
import itertools
import json
import time

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from slimcv import data as datasets
from slimcv.errors import NotApplicable, SlimcvError
from slimcv.models import capture
from slimcv.step import Context, InputSpec, Variant
from slimcv.train import finetune
from slimcv.train import loop as looping
from slimcv.train.settings import FinetuneSettings

INPUT = InputSpec(3, 16, 16)
LARGE = InputSpec(3, 24, 24)


@pytest.fixture
def pictures(tmp_path):
    """Three classes, each a colour in noise, 20 training pictures a class."""
    random = np.random.default_rng(0)
    for part, count in (("train", 20), ("val", 4)):
        for label, name in enumerate(("blue", "green", "red")):
            folder = tmp_path / "pictures" / part / name
            folder.mkdir(parents=True)
            for number in range(count):
                pixels = random.integers(0, 160, (24, 24, 3), dtype=np.uint8)
                pixels[:, :, 2 - label] += 60
                Image.fromarray(pixels).save(folder / f"{number:02}.png")
    return datasets.load(str(tmp_path / "pictures"), cache=tmp_path / "cache")


def network(seed=0, *, dropout=0.1):
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Dropout(dropout), nn.Linear(8, 3),
    )  # fmt: skip


def variant(input=INPUT, seed=0):
    return Variant(capture.capture(network(seed), input), input, ("blue", "green", "red"))


class Sums(nn.Module):
    """Knows the classes: the brightest channel, blue first."""

    def __init__(self, scale=20.0):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(scale))

    def forward(self, x):
        return x.mean((2, 3)).flip(1) * self.scale


def context(tmp_path, data, **changes):
    teacher = Variant(capture.capture(Sums(), LARGE), LARGE, data.classes if data else None)
    (tmp_path / "work").mkdir(parents=True, exist_ok=True)
    given = Context(teacher, data, tmp_path / "work", threads=1, train_threads=1)
    return dataclasses.replace(given, **changes)


def weights(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


def equal(first, second):
    return all(torch.equal(first[name], second[name]) for name in first)


def test_it_learns_from_the_teacher_and_leaves_what_it_was_given_alone(tmp_path, pictures):
    student = variant()
    before = weights(student.model)
    result = finetune(student, context(tmp_path, pictures), FinetuneSettings(epochs=12, lr=0.03, batch=16))
    assert equal(before, student.model.state_dict())
    assert result.best_top1 == 100.0
    assert result.teacher_top1 > 90
    assert result.epochs == 12
    assert result.stopped == "all epochs done"
    assert not any(module.training for module in result.variant.model.modules())
    assert result.seconds_per_epoch > 0
    summary = result.variant.details["finetune"]
    assert json.loads(json.dumps(summary, allow_nan=False))["best_top1"] == 100.0


def test_the_teacher_alone_is_enough_where_labels_do_not_count(tmp_path, pictures):
    settings = FinetuneSettings(epochs=12, lr=0.03, batch=16, distill=1.0)
    assert finetune(variant(), context(tmp_path, pictures), settings).best_top1 == 100.0


def test_the_same_seed_gives_the_same_weights_bit_for_bit(tmp_path, pictures):
    settings = FinetuneSettings(epochs=2, batch=16, shift=0.1, crop=0.1, colour=0.1, vertical_flip=True)
    first, second, other = (
        finetune(variant(), context(tmp_path, pictures), settings.model_copy(update={"seed": seed}))
        for seed in (0, 0, 1)
    )
    assert equal(first.variant.model.state_dict(), second.variant.model.state_dict())
    assert not equal(first.variant.model.state_dict(), other.variant.model.state_dict())


def test_random_numbers_threads_and_denormals_are_as_they_were_afterwards(tmp_path, pictures):
    # ONNX Runtime flushes denormals in the thread that loads a model, so another test may have left it so.
    torch.set_flush_denormal(False)
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    finetune(variant(), context(tmp_path, pictures, train_threads=2), FinetuneSettings(epochs=1))
    torch.manual_seed(5)
    assert torch.rand(1) == expected
    assert torch.get_num_threads() == 1
    assert float(torch.tensor(2e-38) * 0.1) > 0


def test_an_interrupted_training_goes_on_and_ends_with_the_same_weights(tmp_path, pictures, monkeypatch):
    settings = FinetuneSettings(epochs=4, batch=8, lr=0.01, accumulate=2, ema=0.8, schedule="plateau")
    unbroken = finetune(variant(), context(tmp_path / "unbroken", pictures), settings)
    monkeypatch.setattr(looping, "STATE_SECONDS", 0.0)
    write, count = looping.states.write, itertools.count(1)

    def written_twice(folder, state):
        write(folder, state)
        if next(count) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(looping.states, "write", written_twice)
    broken = context(tmp_path, pictures)
    with pytest.raises(KeyboardInterrupt):
        finetune(variant(), broken, settings)
    resumed = finetune(variant(), broken, settings)
    assert [epoch.loss for epoch in resumed.history] == [epoch.loss for epoch in unbroken.history]
    assert equal(unbroken.variant.model.state_dict(), resumed.variant.model.state_dict())
    assert (resumed.best, resumed.averaged) == (unbroken.best, unbroken.averaged)
    assert not list(broken.workdir.glob("training-*"))


def test_a_damaged_state_of_an_interrupted_training_is_not_used(tmp_path, pictures, monkeypatch):
    settings = FinetuneSettings(epochs=2)
    where = context(tmp_path, pictures)
    folder = where.workdir / f"training-{looping._key(variant(), where, settings)}"
    folder.mkdir()
    (folder / "state.safetensors").write_bytes(b"\x10\0\0\0\0\0\0\0torn")
    assert finetune(variant(), where, settings).epochs == 2


def test_accumulated_steps_equal_one_large_step(tmp_path, pictures):
    student = Variant(capture.capture(nn.Sequential(nn.Flatten(), nn.Linear(768, 3)), INPUT), INPUT)
    shared = {"epochs": 1, "lr": 0.01, "flip": False, "ema": 0.0, "warmup": 0.0, "clip": 0.0}
    whole = finetune(student, context(tmp_path, pictures), FinetuneSettings(batch=64, **shared))
    parts = finetune(student, context(tmp_path, pictures), FinetuneSettings(batch=9, accumulate=6, **shared))
    torch.testing.assert_close(
        whole.variant.model.state_dict(), parts.variant.model.state_dict(), rtol=1e-3, atol=1e-5
    )


def test_a_budget_ends_training_in_time_with_the_rate_annealed(tmp_path, pictures, monkeypatch):
    readings = itertools.count()
    monkeypatch.setattr(time, "perf_counter", lambda: 0.01 * next(readings))
    settings = FinetuneSettings(epochs=10_000, budget="20s", distill=0, batch=16)
    result = finetune(variant(), context(tmp_path, pictures), settings)
    assert 20 * 0.95 <= result.seconds <= 20 * 1.05
    assert result.stopped == "out of time"
    assert 10 <= result.epochs < 10_000
    rates = [epoch.lr for epoch in result.history if epoch.share]
    assert rates[-1] < 0.05 * max(rates)


def test_a_deadline_that_has_passed_leaves_the_network_as_it_is(tmp_path, pictures):
    student = variant()
    late = context(tmp_path, pictures, deadline=time.perf_counter() - 1)
    result = finetune(student, late, FinetuneSettings(epochs=3))
    assert result.epochs == 0
    assert result.best == 0
    assert result.seconds_per_epoch is None
    assert equal(student.model.state_dict(), result.variant.model.state_dict())


def test_training_that_makes_it_worse_gives_back_what_there_was(tmp_path, pictures):
    good = finetune(
        variant(), context(tmp_path, pictures), FinetuneSettings(epochs=12, lr=0.03, batch=16)
    ).variant
    wild = FinetuneSettings(
        epochs=2, lr=0.9, batch=4, distill=0, label_smoothing=0.9, ema=0, weight_decay=0.9
    )
    result = finetune(good, context(tmp_path, pictures), wild)
    assert result.best_top1 == 100.0


def test_a_loss_that_is_no_number_is_reported_with_epoch_and_step(tmp_path, pictures):
    student = variant()
    with torch.no_grad():
        student.model.get_parameter("0.weight").fill_(float("nan"))
    with pytest.raises(SlimcvError, match="epoch 1, step 1") as caught:
        finetune(student, context(tmp_path, pictures), FinetuneSettings(epochs=2))
    assert "lr" in caught.value.hint


def test_what_was_gained_before_the_loss_diverged_is_kept(tmp_path, pictures, monkeypatch):
    real, calls = looping.Training._step, itertools.count(1)

    def diverging(self, batch, rate, **grouping):
        return (float("nan"), 0) if next(calls) > 30 else real(self, batch, rate, **grouping)

    monkeypatch.setattr(looping.Training, "_step", diverging)
    result = finetune(variant(), context(tmp_path, pictures), FinetuneSettings(epochs=50, lr=0.03, batch=16))
    assert result.stopped == "diverged"
    assert result.best > 0
    assert all(torch.isfinite(value).all() for value in result.variant.model.state_dict().values())


def test_early_stopping_ends_a_training_that_no_longer_gains(tmp_path, pictures):
    settings = FinetuneSettings(epochs=200, early_stopping=3, lr=1e-9, distill=0, ema=0, schedule="plateau")
    result = finetune(variant(), context(tmp_path, pictures), settings)
    assert result.epochs < 200
    assert result.stopped == "no gain on the tuning split for 3 epochs"


def test_a_teacher_that_knows_nothing_is_not_listened_to(tmp_path, pictures, caplog):
    wrong = Variant(capture.capture(Sums(-20.0), LARGE), LARGE)
    with caplog.at_level("WARNING", logger="slimcv"):
        settings = FinetuneSettings(epochs=12, lr=0.03, batch=16)
        result = finetune(variant(), context(tmp_path, pictures, teacher=wrong), settings)
    assert "only the labels are learnt from" in caplog.text
    assert result.best_top1 == 100.0


def test_a_teacher_with_outputs_a_hundred_times_too_large_still_teaches(tmp_path, pictures):
    loud = Variant(capture.capture(Sums(2000.0), LARGE), LARGE)
    settings = FinetuneSettings(epochs=12, lr=0.03, batch=16)
    assert finetune(variant(), context(tmp_path, pictures, teacher=loud), settings).best_top1 == 100.0


def test_bf16_trains_weights_that_stay_float32(tmp_path, pictures):
    result = finetune(variant(), context(tmp_path, pictures), FinetuneSettings(epochs=2, precision="bf16"))
    assert result.precision == "bf16"
    assert {value.dtype for value in result.variant.model.parameters()} == {torch.float32}


def test_weights_come_back_in_the_ordinary_memory_layout_without_denormals(tmp_path, pictures):
    student = variant()
    with torch.no_grad():
        student.model.get_parameter("6.weight")[0] = 1e-39
    result = finetune(
        student, context(tmp_path, pictures), FinetuneSettings(epochs=1, lr=1e-9, weight_decay=0)
    )
    parameters = list(result.variant.model.parameters())
    assert all(parameter.is_contiguous() and parameter.grad is None for parameter in parameters)
    assert not any(((parameter.abs() < 1e-30) & (parameter != 0)).any() for parameter in parameters)


def test_it_does_not_apply_without_pictures_or_to_an_int8_graph(tmp_path, pictures):
    with pytest.raises(NotApplicable, match="needs pictures"):
        finetune(variant(), context(tmp_path, None), FinetuneSettings())
    quantised = dataclasses.replace(variant(), precision="int8")
    with pytest.raises(NotApplicable, match="INT8"):
        finetune(quantised, context(tmp_path, pictures), FinetuneSettings())


def test_a_network_with_other_outputs_than_classes_is_refused(tmp_path, pictures):
    student = Variant(capture.capture(nn.Sequential(nn.Flatten(), nn.Linear(768, 5)), INPUT), INPUT)
    with pytest.raises(SlimcvError, match="5 outputs"):
        finetune(student, context(tmp_path, pictures), FinetuneSettings())


def test_progress_is_logged_with_speed_and_remaining_time(tmp_path, pictures, caplog):
    with caplog.at_level("INFO", logger="slimcv"):
        finetune(variant(), context(tmp_path, pictures), FinetuneSettings(epochs=1))
    assert "images/s, ETA" in caplog.text
    assert "epoch 1/1: loss" in caplog.text
