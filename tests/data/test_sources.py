"""Folder trees and factories are listed, or refused in words."""

import subprocess
import sys
import tracemalloc

import numpy as np
import pytest
from PIL import Image

from slimcv.data.sources import find
from slimcv.errors import SlimcvError


def touch(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"x")


def keys(samples):
    return [(sample.key, sample.class_name) for sample in samples]


def module(tmp_path, monkeypatch, text, name="somebodys_data"):
    (tmp_path / f"{name}.py").write_text(text)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, name, raising=False)
    return f"{name}:make"


def test_train_and_val_are_listed_by_class(tmp_path):
    touch(tmp_path, "train/b/2.JPG", "train/b/1.png", "train/a/x.webp", "val/a/y.bmp", "val/b/z.jpeg")
    listing = find(str(tmp_path))
    assert listing.classes == ("a", "b")
    assert keys(listing.train) == [("train/a/x.webp", "a"), ("train/b/1.png", "b"), ("train/b/2.JPG", "b")]
    assert keys(listing.val) == [("val/a/y.bmp", "a"), ("val/b/z.jpeg", "b")]
    assert listing.train[0].path == str(tmp_path / "train/a/x.webp")


@pytest.mark.parametrize("name", ["valid", "validation", "test"])
def test_other_names_for_val_are_known(tmp_path, name):
    touch(tmp_path, "train/a/1.png", "train/b/1.png", f"{name}/a/2.png")
    assert keys(find(str(tmp_path)).val) == [(f"{name}/a/2.png", "a")]


def test_test_is_left_alone_where_there_is_val(tmp_path):
    touch(tmp_path, "train/a/1.png", "train/b/1.png", "val/a/2.png", "test/a/3.png")
    assert keys(find(str(tmp_path)).val) == [("val/a/2.png", "a")]


@pytest.mark.parametrize("inside", ["", "train/"])
def test_class_folders_alone_leave_val_open(tmp_path, inside):
    touch(tmp_path, f"{inside}a/1.png", f"{inside}b/deep/er/2.png")
    listing = find(str(tmp_path))
    assert listing.val is None
    assert keys(listing.train) == [(f"{inside}a/1.png", "a"), (f"{inside}b/deep/er/2.png", "b")]


def test_hidden_files_and_other_files_are_no_pictures(tmp_path):
    touch(
        tmp_path,
        "a/1.png",
        "a/._1.png",
        "a/notes.txt",
        "b/2.png",
        ".git/3.png",
        "__MACOSX/4.png",
        "readme.md",
    )
    assert keys(find(str(tmp_path)).train) == [("a/1.png", "a"), ("b/2.png", "b")]


def test_links_are_followed_but_not_in_circles(tmp_path):
    touch(tmp_path, "elsewhere/1.png", "root/a/2.png")
    (tmp_path / "root/b").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "root/a/again").symlink_to(tmp_path / "root/a")
    (tmp_path / "root/a/gone.png").symlink_to(tmp_path / "nowhere")
    listing = find(str(tmp_path / "root"))
    assert keys(listing.train) == [("a/2.png", "a"), ("a/gone.png", "a"), ("b/1.png", "b")]


def test_a_missing_directory_is_answered_with_a_near_one(tmp_path):
    touch(tmp_path, "leaves/a/1.png")
    with pytest.raises(SlimcvError, match="no such directory") as caught:
        find(str(tmp_path / "leavs"))
    assert "'leaves'" in caught.value.hint


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["notes.txt"], "no class folders"),
        (["1.png", "2.png"], "no class folders"),
        (["a/notes.txt", "b/notes.txt"], "no pictures in class folders"),
        (["train/a/1.png", "val/a/notes.txt"], "no pictures for validation"),
        (["val/a/1.png", "val/b/1.png"], "has val/ but no train/"),
        (["train/a/1.png", "train/b/1.png", "val/c/1.png"], "that train/ lacks: c"),
    ],
)
def test_a_directory_that_is_no_data_set_is_refused(tmp_path, names, message):
    touch(tmp_path, *names)
    with pytest.raises(SlimcvError, match=message):
        find(str(tmp_path))


def test_a_file_is_no_directory(tmp_path):
    touch(tmp_path, "model.pt")
    with pytest.raises(SlimcvError, match="is a file"):
        find(str(tmp_path / "model.pt"))


def test_a_factory_gives_arrays_with_numbers_and_paths_with_names(tmp_path, monkeypatch):
    Image.new("L", (4, 4)).save(tmp_path / "p.png")
    source = module(
        tmp_path,
        monkeypatch,
        "import numpy as np\n"
        "def make():\n"
        "    pictures = np.arange(32, dtype=np.uint8).reshape(2, 4, 4)\n"
        "    train = pictures, np.array([1, 0])\n"
        "    return {'train': train, 'val': (['p.png'], ['cat']), 'classes': ['cat', 'dog']}\n",
    )
    listing = find(source)
    assert listing.classes == ("cat", "dog")
    assert keys(listing.train) == [("train[0]", "dog"), ("train[1]", "cat")]
    assert listing.val[0].path == "p.png"
    assert listing.train[0].identity != listing.train[1].identity
    assert np.array_equal(listing.train[1].picture, np.arange(16, 32).reshape(4, 4))


def test_a_factory_may_lie_in_a_file_and_leave_val_open(tmp_path, monkeypatch):
    body = "{'train': (np.zeros((1, 2, 2, 3), np.uint8), [0]), 'classes': 'ab'}"
    module(tmp_path, monkeypatch, f"import numpy as np\ndef make():\n    return {body}\n", name="other")
    listing = find(f"{tmp_path}/other.py:make")
    assert listing.val is None
    assert listing.classes == ("a", "b")


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("None", "did not return a mapping"),
        ("{'train': 3, 'classes': 'ab'}", "not a pair"),
        ("{'train': (np.zeros((2, 4, 4), np.uint8), [0]), 'classes': 'ab'}", "2 pictures and 1 labels"),
        ("{'train': (np.zeros((1, 4, 4)), [0]), 'classes': 'ab'}", "float64 of shape"),
        ("{'train': (np.zeros((1, 4, 4), np.uint8), [2]), 'classes': 'ab'}", "outside 0 to 1"),
        ("{'train': (np.zeros((1, 4, 4), np.uint8), ['c']), 'classes': 'ab'}", "not in 'classes'"),
        ("{'train': ([], []), 'classes': 'ab'}", "holds no pictures"),
        ("{'train': ([], []), 'classes': 'aa'}", "names a class twice"),
    ],
)
def test_a_factory_that_keeps_another_contract_is_refused(tmp_path, monkeypatch, body, message):
    source = module(tmp_path, monkeypatch, f"import numpy as np\ndef make():\n    return {body}\n")
    with pytest.raises(SlimcvError, match=message):
        find(source)


def test_a_factory_that_is_not_there_is_refused(tmp_path, monkeypatch):
    source = module(tmp_path, monkeypatch, "def make():\n    return {}\n")
    with pytest.raises(SlimcvError, match=r"nowhere\.at_all cannot be imported"):
        find("nowhere.at_all:make")
    with pytest.raises(SlimcvError, match=r"no code at nowhere\.py"):
        find("nowhere.py:make")
    with pytest.raises(SlimcvError, match="no function 'mak'") as caught:
        find(source.replace(":make", ":mak"))
    assert "'make'" in caught.value.hint


ANNOTATED = """
from __future__ import annotations

from dataclasses import dataclass

from neighbour_of_the_factory import CLASSES, pictures

@dataclass
class Split:
    pictures: list
    labels: list

def make():
    split = Split(pictures(), [0])
    return {"train": (split.pictures, split.labels), "classes": CLASSES}
"""
NEIGHBOUR = """
import numpy as np

CLASSES = ["cat", "dog"]

def pictures():
    return np.zeros((1, 4, 4), np.uint8)
"""


def test_a_factory_in_a_file_may_be_annotated_and_import_its_neighbours_from_anywhere(tmp_path, monkeypatch):
    module(tmp_path, monkeypatch, NEIGHBOUR, name="neighbour_of_the_factory")
    module(tmp_path, monkeypatch, ANNOTATED, name="annotated_factory")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert keys(find("../annotated_factory.py:make").train) == [("train[0]", "cat")]


@pytest.mark.parametrize("text", ["def make(:\n", "raise SystemExit(3)\n", "1 / 0\n", "nowhere\n"])
def test_a_factory_whose_code_fails_is_refused_in_words(tmp_path, monkeypatch, text):
    source = module(tmp_path, monkeypatch, text)
    for place in (source, "somebodys_data.py:make"):
        with pytest.raises(SlimcvError, match="cannot be imported"):
            find(place)


def test_finding_pictures_imports_no_torch():
    code = "import sys, slimcv.data.sources; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_very_many_pictures_take_little_memory(tmp_path):
    """50,000 are to take less than 50 MB."""
    touch(tmp_path, *(f"train/{label}/picture_{number:06}.jpg" for label in "ab" for number in range(500)))
    tracemalloc.start()
    listing = find(str(tmp_path))
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(listing.train) == 1000
    assert most < 1000 * 1000
