"""Three splits that never meet, with labels and pixels that belong together."""

import dataclasses
import logging

import numpy as np
import pytest
from PIL import Image

from slimcv import data
from slimcv.errors import SlimcvError
from slimcv.step import InputSpec

SHADES = {"dark": 20, "grey": 120, "light": 230}


def tree(root, counts, *, suffix="png"):
    """Class folders of even pictures whose shade tells their class."""
    for folder, count in counts.items():
        (root / folder).mkdir(parents=True, exist_ok=True)
        for index in range(count):
            shade = SHADES[folder.split("/")[-1]]
            Image.new("RGB", (12, 10), (shade,) * 3).save(root / f"{folder}/{index:02}.{suffix}")
    return str(root)


@pytest.fixture
def source(tmp_path):
    train = {f"train/{name}": 12 for name in SHADES}
    return tree(tmp_path / "data", {**train, **{f"val/{name}": 4 for name in SHADES}})


def names(split):
    return set(split.paths)


def test_the_splits_are_disjoint_cover_all_and_keep_val_apart(source):
    found = data.load(source)
    assert found.classes == ("dark", "grey", "light")
    assert [len(split) for split in (found.train, found.tuning, found.val)] == [33, 3, 12]
    assert not names(found.train) & names(found.tuning)
    assert {path.split("/")[-3] for path in found.val.paths} == {"val"}
    assert {path.split("/")[-3] for path in found.train.paths + found.tuning.paths} == {"train"}
    assert sorted(found.tuning.labels) == [0, 1, 2]


def test_labels_paths_and_pixels_belong_together(source):
    found = data.load(source)
    for split in (found.train, found.tuning, found.val):
        pixels = split.pixels(6, 8, 3)
        assert pixels.shape == (len(split), 6, 8, 3)
        assert split.labels.dtype == np.int64
        shades = list(SHADES.values())
        assert [shades[label] for label in split.labels] == pixels[:, 0, 0, 0].tolist()
        assert [found.classes[label] for label in split.labels] == [
            path.split("/")[-2] for path in split.paths
        ]


def test_a_single_tree_is_split_by_fifths(tmp_path):
    found = data.load(tree(tmp_path / "data", dict.fromkeys(SHADES, 20)))
    assert [len(split) for split in (found.train, found.tuning, found.val)] == [42, 6, 12]
    assert np.bincount(found.val.labels).tolist() == [4, 4, 4]
    everything = names(found.train) | names(found.tuning) | names(found.val)
    assert len(everything) == 60


def test_the_seed_decides_the_split_and_the_place_does_not(tmp_path):
    def held(place, seed):
        found = data.load(tree(tmp_path / place, dict.fromkeys(SHADES, 20)), seed=seed)
        return [path.removeprefix(str(tmp_path / place)) for path in found.val.paths]

    assert held("here", 1) == held("there", 1)
    assert set(held("here", 1)) != set(held("here", 2))


def test_broken_pictures_are_left_out_counted_and_named(source, tmp_path, caplog):
    broken = [tmp_path / "data/train/dark/03.png", tmp_path / "data/val/light/01.png"]
    broken[0].write_bytes(broken[0].read_bytes()[:50])
    broken[1].write_bytes(b"")
    with caplog.at_level(logging.WARNING, logger="slimcv"):
        found = data.load(source)
    assert "2 of 48 pictures cannot be read" in caplog.text
    assert str(broken[0]) in caplog.text
    assert [picture.path for picture in found.broken] == [str(path) for path in broken]
    assert all(picture.reason for picture in found.broken)
    assert len(found.train) + len(found.tuning) == 35
    assert len(found.val) == len(found.val.pixels(4, 4, 1)) == 11
    assert not {str(path) for path in broken} & (names(found.train) | names(found.tuning) | names(found.val))


def test_pictures_that_are_all_broken_are_an_error(tmp_path):
    for name in ("a/1.jpg", "a/2.jpg", "b/1.jpg"):
        (tmp_path / "data" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "data" / name).write_bytes(b"nothing")
    with pytest.raises(SlimcvError, match="none of the 3 pictures"):
        data.load(str(tmp_path / "data"))


def test_a_class_without_readable_pictures_is_an_error(source, tmp_path):
    for path in (tmp_path / "data/train/grey").iterdir():
        path.write_bytes(b"nothing")
    with pytest.raises(SlimcvError, match="no readable training picture of grey"):
        data.load(source)


def test_an_empty_class_folder_is_an_error_since_it_would_shift_the_labels(source, tmp_path):
    (tmp_path / "data/train/empty").mkdir()
    with pytest.raises(SlimcvError, match="no readable training picture of empty"):
        data.load(source)


def test_one_class_is_an_error(tmp_path):
    with pytest.raises(SlimcvError, match="only one class, 'dark'"):
        data.load(tree(tmp_path / "data", {"dark": 5}))


def test_too_few_pictures_are_an_error(tmp_path):
    with pytest.raises(SlimcvError, match="too few readable pictures"):
        data.load(tree(tmp_path / "data", {"dark": 1, "light": 1}))


def test_labels_follow_the_models_order_of_classes(source):
    found = data.load(source, classes=("light", "dark", "grey"))
    assert found.classes == ("light", "dark", "grey")
    shades = [230, 20, 120]
    assert [shades[label] for label in found.val.labels] == found.val.pixels(2, 2, 1)[:, 0, 0, 0].tolist()


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        (("dark", "grey"), "the model does not know light"),
        (("dark", "grey", "light", "pink"), "the data lacks pink"),
        (("dark", "grey", "lite"), "the data lacks lite; the model does not know light"),
        (("dark", "grey", "light", "light"), "names a class twice"),
    ],
)
def test_classes_other_than_the_models_are_an_error_that_names_them(source, classes, message):
    with pytest.raises(SlimcvError, match=message):
        data.load(source, classes=classes)


def test_the_number_of_outputs_must_be_that_of_the_classes(source):
    found = data.load(source)
    found.check_outputs(3)
    with pytest.raises(SlimcvError, match="the model has 10 outputs, the data 3 classes") as caught:
        found.check_outputs(10)
    assert "dark, grey, light" in caught.value.hint


def test_the_fingerprint_changes_with_files_classes_and_seed_and_with_nothing_else(source, tmp_path):
    first = data.load(source).fingerprint
    assert data.load(source, cache=tmp_path / "elsewhere").fingerprint == first
    assert data.load(source, seed=1).fingerprint != first
    assert data.load(source, classes=("light", "dark", "grey")).fingerprint != first
    Image.new("RGB", (30, 30)).save(tmp_path / "data/train/dark/99.png")
    assert data.load(source).fingerprint != first


def test_pictures_in_memory_work_like_files(tmp_path, monkeypatch):
    (tmp_path / "shades.py").write_text(
        "import numpy as np\n"
        "def make():\n"
        "    labels = np.arange(60) % 3\n"
        "    shades = np.array([20, 120, 230], np.uint8)[labels]\n"
        "    pictures = np.broadcast_to(shades[:, None, None], (60, 5, 5))\n"
        "    return {'train': (pictures, labels), 'classes': ['dark', 'grey', 'light']}\n"
    )
    monkeypatch.chdir(tmp_path)
    found = data.load("shades:make")
    assert [len(split) for split in (found.train, found.tuning, found.val)] == [42, 6, 12]
    assert found.train.paths[0].startswith("train[")
    for split in (found.train, found.val):
        assert np.array([20, 120, 230])[split.labels].tolist() == split.pixels(5, 5, 1)[:, 2, 2, 0].tolist()
    assert data.load("shades:make").fingerprint == found.fingerprint


def test_a_known_input_is_decoded_in_one_go_for_all_splits_and_seeds(source, caplog):
    caplog.set_level(logging.INFO, logger="slimcv")
    found = data.load(source, input=InputSpec(3, 6, 8))
    assert caplog.text.count("decoding 48 pictures to 6x8") == 1
    other = data.load(source, input=InputSpec(3, 6, 8), seed=1)
    caplog.clear()
    shades = np.array(list(SHADES.values()))
    for split in (found.train, found.tuning, found.val, other.train, other.tuning):
        assert split.pixels(6, 8, 3)[:, 0, 0, 0].tolist() == shades[split.labels].tolist()
    assert caplog.text == ""


def test_broken_pictures_are_left_out_of_a_known_input_too(source, tmp_path):
    (tmp_path / "data/train/dark/03.png").write_bytes(b"nothing")
    found = data.load(source, input=InputSpec(1, 4, 4))
    assert [picture.path for picture in found.broken] == [str(tmp_path / "data/train/dark/03.png")]
    shades = np.array(list(SHADES.values()))
    assert found.train.pixels(4, 4, 1)[:, 0, 0, 0].tolist() == shades[found.train.labels].tolist()


@pytest.mark.parametrize("input", [None, InputSpec(3, 6, 8)])
def test_without_keeping_no_file_is_left(source, tmp_path, input, monkeypatch):
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    found = data.load(source, input=input, keep=False)
    assert found.train.pixels(6, 8, 3).shape == (33, 6, 8, 3)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "temporary"]
    assert list((tmp_path / "temporary").iterdir()) == []


def test_pictures_beyond_the_limit_of_the_cache_are_streamed(source, tmp_path):
    found = data.load(source, cache=tmp_path / "c", cache_limit=1000, input=InputSpec(3, 6, 8))
    shades = np.array(list(SHADES.values()))
    assert found.train.pixels(6, 8, 3)[:, 0, 0, 0].tolist() == shades[found.train.labels].tolist()
    assert not list((tmp_path / "c").glob("*.npy"))


def test_the_dataset_cannot_be_changed(source):
    with pytest.raises(dataclasses.FrozenInstanceError):
        data.load(source).classes = ()
