"""The teacher's outputs: asked once for every view, kept on disk, told apart by what they depend on."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from slimcv import data as datasets
from slimcv.data.batches import normalise
from slimcv.errors import SlimcvError
from slimcv.models import capture
from slimcv.step import Context, InputSpec, Variant
from slimcv.train import asking, teacher

INPUT = InputSpec(3, 12, 12)


@pytest.fixture
def data(tmp_path):
    random = np.random.default_rng(0)
    for name in ("a", "b"):
        (tmp_path / "pictures" / name).mkdir(parents=True)
        for number in range(12):
            pixels = random.integers(0, 255, (12, 12, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "pictures" / name / f"{number}.png")
    return datasets.load(str(tmp_path / "pictures"), cache=tmp_path / "cache")


@pytest.fixture
def context(tmp_path, data):
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(400, 2))
    given = Variant(capture.capture(net, INPUT), INPUT)
    return Context(given, data, tmp_path / "work", threads=1, train_threads=1)


def test_every_view_has_the_outputs_of_the_mirrored_pictures(context, data):
    form = asking.named(context, asking.EAGER)
    found = teacher.targets(context, data.train, views=(0, 1, 2, 3), form=form)
    pixels = np.array(data.train.pixels(12, 12, 3))
    for view, mirrored in enumerate((pixels, pixels[:, :, ::-1], pixels[:, ::-1], pixels[:, ::-1, ::-1])):
        with torch.no_grad():
            expected = context.teacher.model(normalise(torch.from_numpy(mirrored.copy()), INPUT)).numpy()
        np.testing.assert_allclose(found.logits[view], expected, atol=1e-5)
    index, view = np.array([3, 0, 5]), np.array([1, 0, 3])
    expected = np.stack([found.logits[1][3], found.logits[0][0], found.logits[3][5]])
    np.testing.assert_array_equal(found.of(index, view), expected)


def test_a_second_question_is_answered_from_disk(context, data):
    first = teacher.targets(context, data.train, views=(0, 1))
    second = teacher.targets(context, data.train, views=(0, 1))
    assert first.seconds > 0
    assert second.seconds == 0
    np.testing.assert_array_equal(first.logits[1], second.logits[1])


def test_other_weights_input_or_pictures_are_asked_about_anew(context, data):
    teacher.targets(context, data.train, views=(0,))
    model = capture.copy(context.teacher.model)
    with torch.no_grad():
        next(model.parameters()).add_(1)
    changes = (
        {"teacher": dataclasses.replace(context.teacher, model=model)},
        {
            "teacher": dataclasses.replace(
                context.teacher, input=dataclasses.replace(INPUT, mean=(0.5, 0.5, 0.5))
            )
        },
        {"data": dataclasses.replace(data, fingerprint="other")},
    )
    for change in changes:
        other = dataclasses.replace(context, **change)
        assert teacher.targets(other, data.train, views=(0,)).seconds > 0


def test_a_torn_file_is_made_again(context, data):
    form = asking.named(context, asking.EAGER)
    first = teacher.targets(context, data.train, views=(0,), form=form)
    expected = np.array(first.logits[0])
    (file,) = context.workdir.rglob("*.npy")
    file.write_bytes(file.read_bytes()[:100])
    again = teacher.targets(context, data.train, views=(0,), form=form)
    np.testing.assert_array_equal(again.logits[0], expected)


def test_what_was_answered_before_an_interruption_is_not_asked_again(context, data):
    form = asking.named(context, asking.EAGER)
    expected = np.array(teacher.targets(context, data.train, views=(0,), form=form).logits[0])
    (file,) = context.workdir.rglob("*.npy")
    file.unlink()
    eager, asked = asking.named(context, asking.EAGER).predict, []

    def interrupted(pixels):
        if asked:
            raise KeyboardInterrupt
        asked.append(len(pixels))
        return eager(pixels)

    def counting(pixels):
        asked.append(len(pixels))
        return eager(pixels)

    for predict in (interrupted, counting):
        try:
            form = asking.Form(asking.EAGER, predict, 1e-9)
            found = teacher.targets(context, data.train, views=(0,), form=form, every=1e-9)
        except KeyboardInterrupt:
            assert not file.exists()
    np.testing.assert_array_equal(found.logits[0], expected)
    assert sum(asked) == len(data.train)
    assert [path.name for path in context.workdir.rglob("*.npy")] == [file.name]


def test_it_is_asked_about_as_many_views_as_there_is_time_for(context, data):
    form = asking.Form(asking.EAGER, asking.named(context, asking.EAGER).predict, 1.0)
    split, whole = data.train, len(data.train)

    def affordable(seconds):
        return teacher.affordable(context, split, views=(0, 1, 2, 3), seconds_left=seconds, form=form)

    assert affordable(math.inf) == ((0, 1, 2, 3), form)
    assert affordable(2 * 2.5 * whole) == ((0, 1), form)
    assert affordable(2 * 0.9 * whole)[0] == ()
    teacher.targets(context, split, views=(0, 3), form=form)
    assert affordable(0.0)[0] == (0, 3), "what is on disk costs nothing"
    assert teacher.affordable(context, split, views=(0, 3), seconds_left=0.0) == ((0, 3), None)


def test_what_asking_took_is_noted_when_answers_are_on_disk(context, data):
    noted, count = [], len(data.train)
    found = teacher.targets(
        context, data.train, views=(0, 1), every=1e-9, noted=lambda *what: noted.append(what)
    )
    # Batches of sixteen; the last note of a view is when its own file is there.
    assert [asked for _, asked in noted] == [16, count, count, count + 16, 2 * count, 2 * count]
    assert noted == sorted(noted)
    assert (found.seconds, found.asked) == noted[-1]


def test_mirror_images_that_were_not_asked_about_have_the_outputs_of_the_picture():
    found = teacher.Targets({0: np.arange(6, dtype=np.float32).reshape(3, 2)}, top1=100.0, seconds=0.0)
    np.testing.assert_array_equal(found.of(np.array([2, 1]), np.array([1, 0])), [[4, 5], [2, 3]])


def test_a_slow_teacher_is_asked_in_openvino_and_says_the_same(context, data, monkeypatch):
    monkeypatch.setattr(asking, "WORTH_EXPORTING_SECONDS", 0.0)
    pixels = np.array(data.train.pixels(12, 12, 3))
    expected = asking.named(context, asking.EAGER).answers(pixels)
    found = asking.fastest(context, data.train, pictures=10)
    assert found.seconds_each > 0
    np.testing.assert_allclose(found.answers(pixels), expected, rtol=0.03, atol=0.03)
    in_openvino = asking.named(context, asking.OPENVINO).answers(pixels)
    np.testing.assert_allclose(in_openvino, expected, rtol=0.03, atol=0.03)


def test_a_work_folder_that_cannot_be_written_is_an_error_with_a_hint(context, data, tmp_path):
    (tmp_path / "file").write_text("")
    blocked = dataclasses.replace(context, workdir=tmp_path / "file")
    with pytest.raises(SlimcvError, match="cannot write"):
        teacher.targets(blocked, data.train, views=(0,))
