"""What both networks said to each picture, and which pictures are worth looking at."""

import base64
import io

import numpy as np
import pytest
from PIL import Image

from slimcv import data, predictions
from slimcv.errors import SlimcvError
from slimcv.step import InputSpec


@pytest.fixture
def split(tmp_path):
    """Twelve pictures, four of each class, each in a colour of its own."""
    for name in ("cat", "dog", "emu"):
        for part, count in (("train", 3), ("val", 4)):
            folder = tmp_path / "pictures" / part / name
            folder.mkdir(parents=True)
            for number in range(count):
                pixels = np.full((40, 200, 3), (60 * number, 90, 200), np.uint8)
                Image.fromarray(pixels).save(folder / f"{number}.png")
    return data.load(str(tmp_path / "pictures")).val


def written(split, folder, optimized, *, channels=3):
    predictions.write(
        folder,
        split,
        input=InputSpec(channels, 20, 200, (0.5,) * channels, (0.5,) * channels),
        classes=("cat", "dog", "emu"),
        original=split.labels.tolist(),
        optimized=optimized,
    )
    return predictions.read(folder)


def test_every_picture_has_its_answers(split, tmp_path):
    said = written(split, tmp_path, split.labels.tolist())
    assert said["labels"] == said["original"] == said["optimized"] == split.labels.tolist()
    assert said["pictures"] == list(split.paths)
    assert said["examples"] == []


def test_each_kind_of_mistake_is_shown_before_any_a_second_time(split, tmp_path):
    optimized = split.labels.copy()
    cats, dogs = (np.flatnonzero(split.labels == label) for label in (0, 1))
    optimized[cats] = 1
    optimized[dogs[0]] = 2
    said = written(split, tmp_path, optimized.tolist())
    shown = [example["picture"] for example in said["examples"]]
    assert shown[:2] == [cats[0], dogs[0]]
    assert sorted(shown) == sorted([*cats, dogs[0]])


@pytest.mark.parametrize("channels", [1, 3])
def test_a_thumbnail_is_a_small_picture(split, tmp_path, channels):
    optimized = (split.labels + 1) % 3
    said = written(split, tmp_path, optimized.tolist(), channels=channels)
    assert len(said["examples"]) == predictions.LOST
    head, _, content = said["examples"][0]["thumbnail"].partition(",")
    assert head == "data:image/jpeg;base64"
    picture = Image.open(io.BytesIO(base64.b64decode(content)))
    assert max(picture.size) <= predictions.THUMBNAIL
    assert len(content) < 6000


def test_without_a_file_there_are_none(tmp_path):
    assert predictions.read(tmp_path) is None


@pytest.mark.parametrize(
    ("content", "message"),
    [('{"schema_version": 1, "cla', "cut short, or not JSON"), ("[1, 2]", "not the answers of a run")],
)
def test_a_file_that_was_cut_short_is_refused_with_what_to_do(tmp_path, content, message):
    (tmp_path / predictions.PREDICTIONS).write_text(content)
    with pytest.raises(SlimcvError, match=message) as refused:
        predictions.read(tmp_path)
    assert "remove it" in refused.value.hint
