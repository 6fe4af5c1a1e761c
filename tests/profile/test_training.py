"""A profiled training: its parts add up, what was tried is told, and advice follows from measurements."""

import dataclasses
import json
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from slimcv import cli
from slimcv import data as datasets
from slimcv.errors import SlimcvError
from slimcv.models import capture
from slimcv.profile import training
from slimcv.profile.layers import Advice
from slimcv.profile.training import profile_training
from slimcv.profile.training.advice import advise
from slimcv.profile.training.findings import BackwardKind, Part, Teacher, TrainingProfile, Tried
from slimcv.report.profile_training import render_training
from slimcv.step import Context, InputSpec, Variant
from slimcv.train.settings import FinetuneSettings

INPUT = InputSpec(3, 16, 16)
PARTS = ("decode", "augment", "forward", "backward", "optimizer", "waiting")


def settings(**values):
    return FinetuneSettings.model_validate(values)


def network():
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, padding=1, groups=8),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 2),
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two classes of 24 training pictures each."""
    random = np.random.default_rng(0)
    place = tmp_path_factory.mktemp("pictures")
    for part, count in (("train", 24), ("val", 4)):
        for name in ("cat", "dog"):
            (place / part / name).mkdir(parents=True)
            for number in range(count):
                pixels = random.integers(0, 255, (20, 20, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(place / part / name / f"{number:02}.png")
    return place


@pytest.fixture(scope="module")
def context(folder, tmp_path_factory):
    work = tmp_path_factory.mktemp("work")
    torch.manual_seed(0)
    teacher = Variant(capture.capture(network(), INPUT), INPUT, ("cat", "dog"))
    data = datasets.load(str(folder), cache=work / "cache")
    return Context(teacher=teacher, data=data, workdir=work, threads=1, train_threads=1)


@pytest.fixture(scope="module")
def found(context):
    return profile_training(
        context.teacher, context, settings=settings(batch=8, crop=0.2), name="net", seconds=60.0
    )


def test_the_parts_of_a_step_add_up_to_it(found):
    assert tuple(part.name for part in found.parts) == PARTS
    assert sum(part.ms for part in found.parts) == pytest.approx(found.step_ms)
    assert sum(part.share for part in found.parts) == pytest.approx(1)
    assert sum(part.first_share for part in found.parts) == pytest.approx(1)
    assert all(part.ms >= 0 for part in found.parts)
    assert found.part("forward").ms > 0
    assert found.part("backward").ms > 0
    assert found.part("optimizer").ms > 0


def test_only_the_first_epoch_decodes(found):
    decode = found.part("decode")
    assert decode.first_ms == pytest.approx(decode.ms + 8 * found.decode_ms_each)
    for name in PARTS[1:]:
        assert found.part(name).first_ms == found.part(name).ms


def test_speed_and_epochs_follow_from_the_step(found, context):
    assert found.pictures == len(context.data.train)
    assert found.images_per_second == pytest.approx(1000 * 8 / found.step_ms)
    assert found.epoch_seconds == pytest.approx(found.pictures / found.images_per_second)
    assert found.first_epoch_seconds > found.epoch_seconds
    assert found.steps >= 2


def test_other_ways_are_tried_and_compared_with_what_is(found):
    names = {one.name for one in found.tried}
    assert {"contiguous", "crop off", "batch 16", "batch 4"} <= names
    assert all(one.ms_each > 0 and one.as_is_ms_each > 0 for one in found.tried)


def test_backward_is_told_by_kind_of_layer(found):
    assert {"3×3 convolution", "depthwise convolution", "linear"} <= {kind.kind for kind in found.backward}
    assert sum(kind.share for kind in found.backward) == pytest.approx(1)


def test_the_teachers_cost_is_told_a_picture_a_step_and_in_all(found):
    teacher = found.teacher
    assert teacher.ms_each > 0
    assert teacher.live_step_ms == pytest.approx(8 * teacher.ms_each)
    assert teacher.once_seconds == pytest.approx(2 * found.pictures * teacher.ms_each / 1000)


def test_a_training_on_labels_alone_has_no_teacher(context):
    found = profile_training(context.teacher, context, settings=settings(batch=8, distill=0), seconds=0.0)
    assert found.teacher is None
    assert "teacher" not in render_training(found.as_json(), "text")


def test_without_time_the_steps_are_few_and_what_was_left_out_is_said(context):
    found = profile_training(context.teacher, context, settings=settings(batch=8), seconds=0.0)
    assert found.steps == 2
    assert any("not tried" in remark for remark in found.remarks)


def test_a_batch_larger_than_the_data_is_all_of_the_data(context):
    found = profile_training(context.teacher, context, settings=settings(batch=512), seconds=0.0)
    assert found.batch == len(context.data.train)
    assert found.asked_batch == 512


@pytest.mark.parametrize(("limit", "value"), [("SLOWEST_STEP_MS", 0.0), ("SHARE_OF_FREE_MEMORY", -1.0)])
def test_no_step_is_measured_on_a_single_picture_which_a_norm_may_refuse(context, monkeypatch, limit, value):
    monkeypatch.setattr(training, limit, value)
    found = profile_training(context.teacher, context, settings=settings(batch=3), seconds=0.0)
    assert found.batch == 2


def test_the_network_threads_and_flushing_are_left_as_they_were(context):
    variant = context.teacher
    before = {name: value.clone() for name, value in variant.model.state_dict().items()}
    threads = torch.get_num_threads()
    profile_training(variant, context, settings=settings(batch=8), seconds=0.0)
    assert torch.get_num_threads() == threads
    assert float(torch.tensor(2e-38) * 0.1) != 0.0
    assert all(torch.equal(before[name], value) for name, value in variant.model.state_dict().items())
    assert all(parameter.grad is None for parameter in variant.model.parameters())


def test_pictures_are_needed(context):
    with pytest.raises(SlimcvError, match="needs pictures"):
        profile_training(context.teacher, dataclasses.replace(context, data=None), settings=settings())


def test_an_int8_graph_is_refused(context):
    variant = dataclasses.replace(context.teacher, precision="int8")
    with pytest.raises(SlimcvError, match="INT8"):
        profile_training(variant, context, settings=settings())


def test_json_is_strict_and_has_every_part(found):
    values = json.loads(render_training(found.as_json(), "json"), parse_constant=pytest.fail)
    assert values["schema_version"] == 1
    assert values["model"]["name"] == "net"
    training = values["training"]
    assert [part["name"] for part in training["parts"]] == list(PARTS)
    assert training["tried"][0]["gain"] == pytest.approx(found.tried[0].gain)


def test_text_fits_a_terminal_and_ends_with_what_to_change(found):
    text = render_training(found.as_json(), "text")
    assert max(len(line) for line in text.splitlines()) <= 80
    words = " ".join(text.split())
    assert "a training step of 8 pictures" in words
    assert "What to change" in words
    assert "images/s" in words


def test_markdown_escapes_names(found):
    values = found.as_json()
    values["model"]["name"] = "<b>x</b>"
    text = render_training(values, "markdown")
    assert r"\<b\>x\</b\>" in text
    assert "| backward |" in text


def made(*, parts=None, tried=(), backward=(), teacher=None, busy_threads=2.0):
    """A profile nobody measured, of a step of 100 ms in which the network takes nearly all."""
    shares = {"forward": 30.0, "backward": 60.0, **(parts or {})}
    whole = sum(shares.values())
    table = tuple(
        Part(name, shares.get(name, 0.0), shares.get(name, 0.0) / whole, shares.get(name, 0.0), 0.0)
        for name in PARTS
    )
    return TrainingProfile(
        model={"name": "net", "input": "3x16x16", "classes": 2},
        pictures=1000,
        batch=32,
        asked_batch=32,
        steps=10,
        threads=2,
        precision="fp32",
        parts=table,
        step_ms=whole,
        images_per_second=32_000 / whole,
        busy_threads=busy_threads,
        epoch_seconds=whole / 32,
        first_epoch_seconds=whole / 32,
        decode_ms_each=1.0,
        teacher=teacher,
        peak_rss_bytes=None,
        trained_bytes=None,
        backward=tuple(backward),
        tried=tuple(tried),
        advice=(),
        remarks=(),
    )


def texts(profile, **values) -> list[str]:
    return [advice.text for advice in advise(profile, settings(**values)).advice]


def test_a_dominant_depthwise_backward_names_the_memory_format_and_what_it_gains():
    kinds = (BackwardKind("depthwise convolution", 40.0, 0.66), BackwardKind("linear", 20.0, 0.34))
    (text,) = texts(made(backward=kinds, tried=[Tried("contiguous", 6.0, 2.0)], parts={"augment": 30.0}))[:1]
    assert "depthwise convolutions take 66.0 % of the backward computation" in text
    assert "channels_last is on" in text
    assert "3.0× as long" in text


def test_a_faster_batch_is_advised_with_its_gain_and_a_slower_one_is_not():
    tried = [Tried("batch 64", 2.5, 2.8), Tried("batch 16", 3.3, 2.8)]
    found = texts(made(tried=tried))
    assert any("batch 64 is 12 % faster than 32" in text for text in found)
    assert not any("batch 16" in text for text in found)
    assert any("the learning rate follows by itself" in text for text in found)
    assert not any("learning rate" in text for text in texts(made(tried=tried), lr=1e-3))


def test_an_expensive_change_of_pictures_can_be_switched_off():
    found = advise(made(parts={"augment": 30.0}, tried=[Tried("crop off", 2.5, 3.0)]), settings(crop=0.2))
    advice = next(advice for advice in found.advice if "crop" in advice.text)
    assert isinstance(advice, Advice)
    assert "augmentation takes 25.0 % of a step" in advice.text
    assert "crop: 0" in advice.text
    assert advice.share == pytest.approx(1 - 2.5 / 3.0)


def test_decoding_that_dominates_the_first_epoch_is_cached_afterwards():
    profile = made()
    decode = Part("decode", 0.1, 0.001, 60.0, 0.4)
    found = texts(dataclasses.replace(profile, parts=(decode, *profile.parts[1:])))
    assert any("decoding dominates the first epoch" in text and "cached afterwards" in text for text in found)


@pytest.mark.parametrize(
    ("how", "words"), [("cached", "slimcv asks once about"), ("live", "teacher: cached asks once about")]
)
def test_what_the_teacher_would_add_to_a_step_is_told(how, words):
    teacher = Teacher(how, "PyTorch", 10.0, 2, 20.0, 320.0)
    (text,) = [text for text in texts(made(teacher=teacher)) if "teacher" in text]
    assert "320 ms a step" in text
    assert words in text


@pytest.mark.parametrize(
    ("values", "why"),
    [
        ({"crop": 0.2}, "because pictures are changed"),
        ({"teacher": "live"}, "because teacher: live was asked"),
    ],
)
def test_why_the_teacher_is_asked_every_time_is_told(values, why):
    teacher = Teacher("live", "PyTorch", 10.0, 2, 20.0, 320.0)
    assert any(why in text for text in texts(made(teacher=teacher), **values))


def test_an_expensive_optimizer_is_shared_by_more_steps():
    found = texts(made(parts={"optimizer": 30.0}), accumulate=2)
    assert any("accumulate: 4 would save about 12.5 %" in text for text in found)


def test_idle_threads_are_told():
    assert any("1.1 of 2 threads are busy" in text for text in texts(made(busy_threads=1.1)))


def test_ways_that_are_as_fast_are_not_advised():
    tried = [
        Tried("contiguous", 2.0, 2.0),
        Tried("batch 64", 2.0, 2.05),
        Tried("allocator as it is", 2.0, 2.0),
    ]
    assert texts(made(tried=tried)) == []


@pytest.fixture
def slimcv(monkeypatch, capsys, tmp_path, folder):
    """The command in this process: its exit code, stdout and stderr."""
    torch.save(network(), tmp_path / "model.pt")
    monkeypatch.chdir(tmp_path)

    def call(*words):
        monkeypatch.setattr(sys, "argv", ["slimcv", "profile", "model.pt", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        said = capsys.readouterr()
        return ended.value.code, said.out, said.err

    return call


def test_the_command_profiles_a_training_as_a_recipe_has_it(slimcv, folder):
    code, out, err = slimcv(
        *("--training", "--data", folder, "--input", "3x16x16", "--batch", "4", "--threads", "1"),
        *("--recipe", "cpu_small", "--set", "finetune.crop=0.3", "--format", "json"),
    )
    assert code == 0, err
    training = json.loads(out)["training"]
    assert training["batch"] == 4
    assert "crop off" in {one["name"] for one in training["tried"]}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--training",), "needs pictures"),
        (("--batch", "8"), "--batch belongs to the profile of a training"),
        (("--data", "."), "--data belongs to the profile of a training"),
        (("--training", "--data", ".", "--recipe", "cpu_lossless"), "does not train"),
        (("--training", "--data", ".", "--set", "finetune.crop=0.3"), "there is none"),
    ],
)
def test_options_that_do_not_go_together_are_refused_with_a_hint(slimcv, words, message):
    code, out, err = slimcv("--input", "3x16x16", *words)
    assert (code, out) == (2, "")
    assert message in err
    assert "hint: " in err
