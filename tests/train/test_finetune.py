"""The fine-tuning loop: it learns, repeats itself, keeps to its time, and gives back the best weights."""

import ctypes
import dataclasses
import functools
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
from slimcv.measure import allocator, environment
from slimcv.models import capture, checkpoint
from slimcv.step import Context, InputSpec, Variant
from slimcv.steps.depthwise_separable import DepthwiseSeparable
from slimcv.train import finetune
from slimcv.train import loop as looping
from slimcv.train import state as states
from slimcv.train.descent import Descent
from slimcv.train.feed import Batch
from slimcv.train.optimizer import by_name
from slimcv.train.planning import Plan, TeacherCost
from slimcv.train.settings import FinetuneSettings
from slimcv.train.state import State
from slimcv.train.teacher import fingerprint

INPUT = InputSpec(3, 16, 16)
LARGE = InputSpec(3, 24, 24)
IN_PYTORCH = ("PyTorch", "PyTorch bf16") if environment.has_bf16_instructions() else ("PyTorch",)
"""The forms of a teacher too small for an export: bfloat16 is timed where the CPU has it."""


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


def network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Dropout(0.1), nn.Linear(8, 3),
    )  # fmt: skip


@functools.cache
def captured(kind, input, *given):
    return capture.capture(kind(*given), input)


def variant():
    return Variant(capture.copy(captured(network, INPUT)), INPUT, ("blue", "green", "red"))


class Sums(nn.Module):
    """Knows the classes: the brightest channel, blue first."""

    def __init__(self, scale=20.0):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(scale))

    def forward(self, x):
        return x.mean((2, 3)).flip(1) * self.scale


def context(tmp_path, data, **changes):
    teacher = Variant(captured(Sums, LARGE), LARGE, data.classes if data else None)
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
    settings = FinetuneSettings(
        epochs=2, batch=16, shift=0.1, crop=0.1, colour=0.1, vertical_flip=True, teacher="live",
        precision="fp32",
    )  # fmt: skip
    first, second, other = (
        finetune(variant(), context(tmp_path / name, pictures), settings.model_copy(update={"seed": seed}))
        for name, seed in (("first", 0), ("second", 0), ("other", 1))
    )
    assert equal(first.variant.model.state_dict(), second.variant.model.state_dict())
    assert not equal(first.variant.model.state_dict(), other.variant.model.state_dict())


def test_random_numbers_threads_and_denormals_are_as_they_were_afterwards(tmp_path, pictures):
    # ONNX Runtime flushes denormals in the thread that loads a model, so another test may have left it so.
    torch.set_flush_denormal(False)
    torch.manual_seed(5)
    expected, threads = torch.rand(1), torch.get_num_threads()
    torch.manual_seed(5)
    finetune(variant(), context(tmp_path, pictures, train_threads=3 - threads), FinetuneSettings(epochs=1))
    torch.manual_seed(5)
    assert torch.rand(1) == expected
    assert torch.get_num_threads() == threads
    assert float(torch.tensor(2e-38) * 0.1) > 0


def test_a_damaged_state_of_an_interrupted_training_is_not_used(tmp_path, pictures):
    settings = FinetuneSettings(epochs=2)
    where = context(tmp_path, pictures)
    folder = where.workdir / f"training-{looping._key(variant(), where, settings)}"
    folder.mkdir()
    (folder / "state.safetensors").write_bytes(b"\x10\0\0\0\0\0\0\0torn")
    (folder / ".tmpleft").write_bytes(b"half")
    assert finetune(variant(), where, settings).epochs == 2
    assert [path.name for path in folder.iterdir()] == ["state.safetensors"]


def test_a_training_that_was_done_when_its_run_was_killed_is_not_done_again(tmp_path, pictures):
    settings = FinetuneSettings(epochs=3, batch=16)
    where = context(tmp_path, pictures)
    first, second = (finetune(variant(), where, settings) for _ in range(2))
    assert equal(first.variant.model.state_dict(), second.variant.model.state_dict())
    assert second.history == first.history
    assert (second.teacher, second.stopped) == ("cached", "all epochs done")
    assert second.teacher_form in IN_PYTORCH
    assert second.peak_rss_bytes == pytest.approx(first.peak_rss_bytes, rel=0.1)


def test_a_deadline_leaves_the_best_weights_on_disk_and_a_later_one_goes_on_from_there(
    tmp_path, pictures, monkeypatch
):
    readings = itertools.count()
    monkeypatch.setattr(time, "perf_counter", lambda: 0.01 * next(readings))
    settings = FinetuneSettings(epochs=40, batch=16)
    where = context(tmp_path, pictures)
    first = finetune(variant(), dataclasses.replace(where, deadline=8.0), settings)
    assert first.stopped == "out of time"
    (folder,) = where.workdir.glob("training-*")
    kept = states.read(folder)
    assert kept.part("best").keys() == variant().model.state_dict().keys()
    assert kept.values["epoch"] > 1
    second = finetune(variant(), where, settings)
    assert second.epochs == 40
    assert second.history[1].loss == first.history[1].loss


def test_a_disk_that_is_full_costs_the_state_and_not_the_training(tmp_path, pictures, caplog):
    settings = FinetuneSettings(epochs=4, batch=16, lr=0.03, precision="fp32", checkpoint_every=1e-6)
    free = finetune(variant(), context(tmp_path / "free", pictures), settings)
    where = context(tmp_path, pictures)
    (where.workdir / f"training-{looping._key(variant(), where, settings)}").write_text("in the way")
    full = finetune(variant(), where, settings)
    assert equal(free.variant.model.state_dict(), full.variant.model.state_dict())
    (remark,) = full.remarks
    assert "the training goes on" in remark
    assert caplog.text.count("the training goes on") == 1


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
    real, calls = Descent.step, itertools.count(1)

    def diverging(self, batch, **how):
        return real(self, batch, **how) * (float("nan") if next(calls) > 30 else 1.0)

    monkeypatch.setattr(Descent, "step", diverging)
    result = finetune(variant(), context(tmp_path, pictures), FinetuneSettings(epochs=50, lr=0.03, batch=16))
    assert result.stopped == "diverged"
    assert result.best > 0
    assert all(torch.isfinite(value).all() for value in result.variant.model.state_dict().values())
    (remark,) = result.remarks
    assert f"the weights of epoch {result.best} are kept; to train on, set a lower lr" in remark


def test_a_gradient_that_is_no_number_changes_no_weight_and_is_reported_with_its_step(tmp_path, pictures):
    class Cliff(nn.Module):
        """Finite, but its slope is infinity times zero."""

        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.ones(3))

        def forward(self, x):
            return x.mean((2, 3)) * self.weight + (self.weight * 0).sqrt()

    student = Variant(capture.capture(Cliff(), INPUT), INPUT)
    for clip in (0.0, 5.0):
        with pytest.raises(SlimcvError, match="the gradient is nan in epoch 1, step 1"):
            finetune(student, context(tmp_path, pictures), FinetuneSettings(clip=clip))
    batch = Batch(torch.randn(4, 3, 16, 16), torch.zeros(4, dtype=torch.int64), None)
    for fused in (True, False):
        descent = Descent(student.model, FinetuneSettings(fused_optimizer=fused), precision="fp32")
        outcome = descent.step(batch, rate=0.1, group=1, update=True)
        assert torch.isnan(outcome[2])
        assert torch.equal(student.model.get_parameter("weight"), torch.ones(3))


def test_early_stopping_ends_a_training_that_no_longer_gains(tmp_path, pictures):
    settings = FinetuneSettings(epochs=200, early_stopping=3, lr=1e-9, distill=0, ema=0, schedule="plateau")
    result = finetune(variant(), context(tmp_path, pictures), settings)
    assert result.epochs < 200
    assert result.stopped == "no gain on the tuning split for 3 epochs"


def test_a_teacher_that_knows_nothing_is_not_listened_to(tmp_path, pictures, caplog):
    wrong = Variant(captured(Sums, LARGE, -20.0), LARGE)
    with caplog.at_level("WARNING", logger="slimcv"):
        settings = FinetuneSettings(epochs=12, lr=0.03, batch=16)
        result = finetune(variant(), context(tmp_path, pictures, teacher=wrong), settings)
    assert "only the labels are learnt from" in caplog.text
    assert result.best_top1 == 100.0


def test_a_teacher_with_outputs_a_hundred_times_too_large_still_teaches(tmp_path, pictures):
    loud = Variant(captured(Sums, LARGE, 2000.0), LARGE)
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


def test_several_steps_a_call_give_the_weights_of_one(tmp_path, pictures):
    settings = FinetuneSettings(epochs=2, batch=8, precision="fp32")
    one, four = (
        finetune(
            variant(), context(tmp_path, pictures), settings.model_copy(update={"steps_per_call": steps})
        )
        for steps in (1, 4)
    )
    assert equal(one.variant.model.state_dict(), four.variant.model.state_dict())
    assert [epoch.loss for epoch in one.history] == [epoch.loss for epoch in four.history]


def test_a_c_library_without_mallopt_is_trained_with_and_told_of_once(
    tmp_path, pictures, monkeypatch, caplog
):
    real = ctypes.CDLL

    def other(name, *more, **options):
        if name is None:
            raise OSError("no such library")
        return real(name, *more, **options)

    monkeypatch.setattr(ctypes, "CDLL", other)
    result = finetune(variant(), context(tmp_path, pictures), FinetuneSettings(epochs=2))
    assert result.remarks == (allocator.UNTUNED,)
    assert caplog.text.count("mallopt") == 1
    assert result.summary()["remarks"] == [allocator.UNTUNED]


def test_the_result_tells_what_the_teacher_cost(tmp_path, pictures):
    result = finetune(variant(), context(tmp_path, pictures), FinetuneSettings(epochs=2))
    assert result.teacher == "cached"
    assert result.teacher_form in IN_PYTORCH
    assert result.teacher_images_per_second == pytest.approx(2 * len(pictures.train) / result.teacher_seconds)
    assert result.teacher_share == pytest.approx(result.teacher_seconds / result.seconds)
    alone = finetune(variant(), context(tmp_path, pictures), FinetuneSettings(epochs=2, distill=0))
    assert (alone.teacher, alone.teacher_form, alone.teacher_share) == (None, None, 0.0)


def test_a_teacher_is_asked_live_where_pictures_are_cut_and_the_budget_allows_it(tmp_path, pictures, caplog):
    settings = FinetuneSettings(epochs=2, crop=0.3, budget="10m")
    with caplog.at_level("INFO", logger="slimcv"):
        live = finetune(variant(), context(tmp_path, pictures), settings)
    assert f"the live teacher took {live.teacher_seconds:.1f} s of the training's " in caplog.text
    assert live.teacher == "live"
    assert live.teacher_form in IN_PYTORCH
    assert live.teacher_seconds > 0
    assert live.teacher_images_per_second > 0
    assert not list((tmp_path / "work").glob("teacher/*.npy"))
    given = settings.model_copy(update={"teacher": "cached"})
    assert finetune(variant(), context(tmp_path, pictures), given).teacher == "cached"


def test_a_teacher_that_is_too_slow_to_be_asked_live_is_asked_beforehand(tmp_path, pictures, caplog):
    class Slow(Sums):
        def forward(self, x):
            for _ in range(300):
                x = x.clamp(-3, 3)
            return super().forward(x)

    slow = Variant(captured(Slow, LARGE), LARGE)
    with caplog.at_level("INFO", logger="slimcv"):
        settings = FinetuneSettings(epochs=2, crop=0.3)
        result = finetune(variant(), context(tmp_path, pictures, teacher=slow), settings)
    assert result.teacher == "cached"
    assert "it is asked before, about whole pictures" in caplog.text


def interrupt(monkeypatch, *numbers):
    """Interrupt the process after some of the states that it writes."""
    real, calls = states.write, itertools.count(1)

    def interrupted(folder, state):
        real(folder, state)
        if next(calls) in numbers:
            raise KeyboardInterrupt

    monkeypatch.setattr(states, "write", interrupted)


def state_of(where, settings):
    return states.read(where.workdir / f"training-{looping._key(variant(), where, settings)}")


def test_what_is_taught_from_disk_goes_on_after_interruptions_with_the_same_weights(
    tmp_path, pictures, monkeypatch
):
    settings = FinetuneSettings(epochs=3, batch=8, precision="fp32", checkpoint_every=1e-9)
    unbroken = finetune(variant(), context(tmp_path / "unbroken", pictures), settings)
    assert (unbroken.teacher, unbroken.teacher_top1 > 90) == ("cached", True)
    where = context(tmp_path, pictures)
    # The second state is that after the first batch of the teacher's answers, the last one in an epoch.
    interrupt(monkeypatch, 2, 18)
    with pytest.raises(KeyboardInterrupt):
        finetune(variant(), where, settings)
    begun = state_of(where, settings)
    assert begun.tensors == {}
    assert begun.values["plan"]["teacher"]["asked"] == 16
    assert 0 < begun.values["plan"]["teacher"]["seconds"] < begun.values["elapsed"]
    with pytest.raises(KeyboardInterrupt):
        finetune(variant(), where, settings)
    assert state_of(where, settings).values["step"] > 0
    resumed = finetune(variant(), where, settings)
    assert equal(resumed.variant.model.state_dict(), unbroken.variant.model.state_dict())
    assert [epoch.loss for epoch in resumed.history] == [epoch.loss for epoch in unbroken.history]
    asked = resumed.teacher_images_per_second * resumed.teacher_seconds
    assert asked == pytest.approx(2 * len(pictures.train)), "no picture twice"


def test_an_interrupted_training_keeps_to_the_views_and_the_time_of_its_plan(tmp_path, pictures):
    for budget, epochs, asked in (("1h", 2, ["view0"]), ("90s", 0, [])):
        where = context(tmp_path / budget, pictures)
        settings = FinetuneSettings(epochs=2, batch=24, budget=budget)
        plan = Plan(settings, "fp32", TeacherCost("cached", "PyTorch", seconds=50.0, asked=9, views=(0,)))
        folder = where.workdir / f"training-{looping._key(variant(), where, settings)}"
        values = {"plan": plan.as_json(), "remarks": [], "peak_bytes": 0, "elapsed": 100.0, "stopped": ""}
        states.write(folder, State({}, values))
        result = finetune(variant(), where, settings)
        assert (result.epochs, result.precision) == (epochs, "fp32")
        assert result.seconds > 100
        assert result.teacher_seconds >= 50
        assert [path.name[-9:-4] for path in where.workdir.glob("teacher/*.npy")] == asked


def test_what_is_taught_live_goes_on_after_an_interruption_with_the_same_weights(
    tmp_path, pictures, monkeypatch
):
    settings = FinetuneSettings(
        epochs=3, batch=8, crop=0.2, colour=0.2, teacher="live", precision="fp32", checkpoint_every=1e-9
    )
    unbroken = finetune(variant(), context(tmp_path / "unbroken", pictures), settings)
    interrupt(monkeypatch, 10)
    with pytest.raises(KeyboardInterrupt):
        finetune(variant(), context(tmp_path, pictures), settings)
    resumed = finetune(variant(), context(tmp_path, pictures), settings)
    assert equal(resumed.variant.model.state_dict(), unbroken.variant.model.state_dict())
    assert resumed.teacher == "live"
    assert resumed.teacher_form in IN_PYTORCH
    assert [epoch.loss for epoch in resumed.history] == [epoch.loss for epoch in unbroken.history]


def test_where_compiling_fails_it_is_trained_as_it_is_and_said(tmp_path, pictures, monkeypatch):
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setenv("PATH", "")
    result = finetune(variant(), context(tmp_path, pictures), FinetuneSettings(epochs=1, compile=True))
    assert not result.compiled
    assert result.compile_seconds == 0
    (remark,) = result.remarks
    assert remark.startswith("trained without torch.compile: ")


def test_it_is_trained_compiled_or_not_as_was_measured_and_said(tmp_path, pictures):
    result = finetune(variant(), context(tmp_path, pictures), FinetuneSettings(epochs=1, compile="auto"))
    slower = [line for line in result.remarks if line.startswith("trained without torch.compile")]
    assert result.compiled == (not slower)
    assert result.compiled == (result.compile_seconds > 0)


def test_what_surgery_made_is_trained_as_the_same_network_once_it_is_read_from_its_checkpoint(tmp_path):
    made = variant()
    cut = DepthwiseSeparable(min_channels=1).apply(made, context(tmp_path, None))
    checkpoint.save(cut, tmp_path / "cut.pt2")
    again = checkpoint.read(tmp_path / "cut.pt2")
    orders = [[name for name, _ in one.model.named_parameters()] for one in (cut, again)]
    assert orders[0] != orders[1], "else this proves nothing"
    assert [*by_name(cut.model)] == [*by_name(again.model)]
    assert fingerprint(cut.model) == fingerprint(again.model)


def test_no_memory_left_in_the_middle_is_an_error_with_a_hint(tmp_path, pictures, monkeypatch):
    real, calls = Descent.step, itertools.count(1)

    def hungry(self, batch, **how):
        if next(calls) == 4:
            torch.empty(10**15)
        return real(self, batch, **how)

    monkeypatch.setattr(Descent, "step", hungry)
    settings = FinetuneSettings(epochs=3, batch=16, checkpoint_every=1e-9)
    with pytest.raises(SlimcvError, match="no memory left for epoch 1, step 4") as caught:
        finetune(variant(), context(tmp_path, pictures), settings)
    assert "smaller batch" in caught.value.hint
    assert finetune(variant(), context(tmp_path, pictures), settings).epochs == 3


def test_progress_is_logged_with_speed_and_remaining_time(tmp_path, pictures, caplog):
    with caplog.at_level("INFO", logger="slimcv"):
        finetune(variant(), context(tmp_path, pictures), FinetuneSettings(epochs=1))
    assert "images/s, ETA" in caplog.text
    assert [record.getMessage().split(",")[0] for record in caplog.records if hasattr(record, "live")] == [
        "epoch 1/1"
    ]
    assert "epoch 1/1: loss" in caplog.text
