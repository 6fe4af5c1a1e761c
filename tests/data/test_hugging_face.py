"""Tables of pictures are read like folders of them, whoever wrote them, and nothing is downloaded."""

import io
import os
import socket
import sys
import tarfile

import datasets
import numpy as np
import pytest
from PIL import Image

from slimcv import data
from slimcv.data import in_place
from slimcv.data.folder import Keeping
from slimcv.data.sources import find
from slimcv.data.tables import Cell, Kept
from slimcv.errors import SlimcvError

NAMES = ["dark", "light"]


@pytest.fixture(autouse=True)
def _no_network(monkeypatch):
    def refuse(*_):
        raise AssertionError("a test opened a connection")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    datasets.disable_progress_bars()


def png(shade):
    file = io.BytesIO()
    Image.new("RGB", (6, 6), (shade,) * 3).save(file, "png")
    return file.getvalue()


def table(count, *, label="label", classes=True):
    """Even pictures, the grey of which is their number; odd ones are light."""
    kind = datasets.ClassLabel(names=NAMES) if classes else datasets.Value("string")
    labels = [number % 2 if classes else NAMES[number % 2] for number in range(count)]
    return datasets.Dataset.from_dict(
        {"image": [{"bytes": png(number), "path": None} for number in range(count)], label: labels},
        features=datasets.Features({"image": datasets.Image(), label: kind}),
    )


def archive(path, count):
    with tarfile.open(path, "w") as tar:
        for number in range(count):
            for name, content in (
                (f"{number:03}.png", png(number)),
                (f"{number:03}.cls", b"01"[number % 2 :][:1]),
            ):
                entry = tarfile.TarInfo(name)
                entry.size = len(content)
                tar.addfile(entry, io.BytesIO(content))


def shades(samples):
    return [np.asarray(Image.open(io.BytesIO(sample.picture.read())))[0, 0, 0] for sample in samples]


def test_a_saved_data_set_keeps_its_splits_classes_and_order(tmp_path):
    splits = {"train": table(12), "validation": table(4), "test": table(6)}
    datasets.DatasetDict(splits).save_to_disk(tmp_path / "saved")
    listing = find(f"hf:{tmp_path}/saved")
    assert listing.classes == ("dark", "light")
    assert shades(listing.train) == list(range(12))
    assert shades(listing.val) == list(range(4))
    assert [sample.class_name for sample in listing.train[:3]] == ["dark", "light", "dark"]
    assert listing.train[3].key == "train[3]"


def test_a_single_table_leaves_validation_open_whatever_it_is_called(tmp_path):
    table(5).save_to_disk(tmp_path / "one")
    datasets.DatasetDict({"test": table(3)}).save_to_disk(tmp_path / "test")
    for name, count in (("one", 5), ("test", 3)):
        listing = find(f"hf:{tmp_path}/{name}")
        assert len(listing.train) == count
        assert listing.val is None


@pytest.mark.parametrize("held_out", ["validation", "val", "valid", "dev", "test"])
def test_parquet_files_are_told_apart_by_their_names(tmp_path, held_out):
    (tmp_path / "data").mkdir()
    table(8).to_parquet(tmp_path / "data/train-00000-of-00001.parquet")
    table(4).to_parquet(tmp_path / f"data/{held_out}-00000-of-00001.parquet")
    listing = find(f"hf:{tmp_path}", Keeping(tmp_path / "cache"))
    assert shades(listing.train) == list(range(8))
    assert shades(listing.val) == list(range(4))


def test_parquet_that_datasets_did_not_write_is_read_by_its_types(tmp_path):
    import pyarrow
    from pyarrow import parquet

    columns = {"id": [7, 8, 9], "picture": [png(5), png(6), png(7)], "label": ["b", "a", "b"]}
    parquet.write_table(pyarrow.table(columns), tmp_path / "p.parquet")
    listing = find(f"hf:{tmp_path}/p.parquet")
    assert shades(listing.train) == [5, 6, 7]
    assert listing.classes == ("a", "b")
    assert [sample.class_name for sample in listing.train] == ["b", "a", "b"]


def test_a_webdataset_archive_is_read(tmp_path):
    archive(tmp_path / "shard.tar", 12)
    listing = find(f"hf:{tmp_path}/shard.tar", Keeping(tmp_path / "cache"))
    assert shades(listing.train) == list(range(12))
    assert listing.classes == ("0", "1")
    assert [sample.class_name for sample in listing.train[:3]] == ["0", "1", "0"]


def test_tables_work_from_end_to_end_like_folders(tmp_path):
    archive(tmp_path / "train.tar", 40)
    archive(tmp_path / "val.tar", 10)
    for keep in (True, False):
        found = data.load(f"hf:{tmp_path}", cache=tmp_path / "cache", keep=keep)
        assert [len(split) for split in (found.train, found.tuning, found.val)] == [36, 4, 10]
        for split in (found.train, found.val):
            pixels = split.pixels(6, 6, 3)
            numbers = [int(path.rpartition("[")[2][:-1]) for path in split.paths]
            assert pixels[:, 0, 0, 0].tolist() == numbers
            assert split.labels.tolist() == [number % 2 for number in numbers]


@pytest.mark.parametrize("kind", ["parquet", "tar"])
@pytest.mark.parametrize("kept", [True, False])
def test_tables_larger_than_the_cache_are_read_where_they_are(tmp_path, monkeypatch, caplog, kind, kept):
    (tmp_path / "data").mkdir()
    for name, count in (("train-0", 25), ("train-1", 15), ("val", 10)):
        file = tmp_path / f"data/{name}.{kind}"
        archive(file, count) if kind == "tar" else table(count).to_parquet(file, batch_size=7)
    whole = data.load(f"hf:{tmp_path}/data", cache=tmp_path / "cache")
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    given = {"cache": tmp_path / "other", "cache_limit": 2000, "keep": kept}
    found = data.load(f"hf:{tmp_path}/data", **given)
    assert "their rows are read where they are" in caplog.text
    assert found.classes == whole.classes
    assert found.fingerprint == whole.fingerprint
    for split, same in ((found.train, whole.train), (found.tuning, whole.tuning), (found.val, whole.val)):
        assert np.array_equal(np.asarray(split.pixels(6, 6, 3)), np.asarray(same.pixels(6, 6, 3)))
        assert np.array_equal(split.labels, same.labels)
    assert list((tmp_path / "temporary").iterdir()) == list(tmp_path.glob("other/*.tables")) == []


def test_groups_of_rows_that_were_read_give_way_to_others(tmp_path, monkeypatch):
    table(30).to_parquet(tmp_path / "a.parquet", batch_size=5)
    monkeypatch.setattr(in_place, "GROUPS_BYTES", 1000)
    rows = in_place.ParquetRows(datasets, [str(tmp_path / "a.parquet")])
    order = np.random.default_rng(0).permutation(30)
    assert [rows.value(int(row), "image")["bytes"] for row in order] == [png(int(row)) for row in order]
    assert 0 < len(rows._kept) < 6


def test_an_archive_that_is_cut_short_is_a_picture_that_cannot_be_read(tmp_path):
    archive(tmp_path / "a.tar", 4)
    rows = in_place.TarRows(datasets, [str(tmp_path / "a.tar")])
    os.truncate(tmp_path / "a.tar", 2000)
    with pytest.raises(ValueError, match="shorter"):
        rows.value(3, "png")


def test_a_label_that_cannot_be_read_is_one_sentence_in_place_too(tmp_path):
    archive(tmp_path / "a.tar", 4)
    bad = (tmp_path / "a.tar").read_bytes()
    at = bad.index(b"003.cls") + 512
    (tmp_path / "a.tar").write_bytes(bad[:at] + b"x" + bad[at + 1 :])
    for limit in (10**9, 2000):
        with pytest.raises(SlimcvError, match="cannot read"):
            find(f"hf:{tmp_path}/a.tar", Keeping(tmp_path / "cache", limit))


def test_tables_in_the_cache_make_room_when_they_are_no_longer_used(tmp_path, caplog):
    archive(tmp_path / "a.tar", 12)
    archive(tmp_path / "b.tar", 12)
    limit = (tmp_path / "a.tar").stat().st_size + 1000
    keeping = Keeping(tmp_path / "cache", limit)
    listing = find(f"hf:{tmp_path}/a.tar", keeping)
    assert shades(find(f"hf:{tmp_path}/b.tar", keeping).train) == list(range(12))
    assert "find no room" in caplog.text
    del listing
    find(f"hf:{tmp_path}/b.tar", keeping)
    assert len(list((tmp_path / "cache").glob("*.tables"))) == 1


def test_columns_may_be_named(tmp_path):
    some = table(4).add_column("other", ["x", "y", "x", "y"]).rename_column("label", "first")
    some = some.add_column("second", [1, 1, 0, 0])
    some.save_to_disk(tmp_path / "saved")
    assert find(f"hf:{tmp_path}/saved").classes == ("dark", "light")
    listing = find(f"hf:{tmp_path}/saved?label=second&image=image")
    assert [sample.class_name for sample in listing.train] == ["1", "1", "0", "0"]


def test_a_row_without_a_picture_is_a_broken_picture(tmp_path):
    rows = {"image": [{"bytes": png(1), "path": None}] * 11 + [None], "label": [0, 1] * 6}
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=NAMES)})
    datasets.Dataset.from_dict(rows, features=features).save_to_disk(tmp_path / "saved")
    found = data.load(f"hf:{tmp_path}/saved")
    assert [(picture.path, picture.reason) for picture in found.broken] == [
        (f"{tmp_path}/saved:train[11]", "no picture in this row")
    ]


def test_a_row_that_names_no_ordinary_file_is_a_broken_picture(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    for name in ("folder", "pipe"):
        rows = datasets.Dataset.from_list([{"image": {"bytes": None, "path": f"{tmp_path}/{name}"}}])
        with pytest.raises(ValueError, match=f"{name} is not a file"):
            Cell(Kept(rows.with_format("arrow")), "image", 0, name).read()


@pytest.mark.parametrize(
    ("query", "message", "hint"),
    [
        ("", "2 columns may hold the label", "?label=COLUMN"),
        ("?label=thrid", "train has no column 'thrid'", "'third'"),
        ("?lable=third", "unknown option 'lable'", "'label'"),
        ("?label=empty", "row 1 of train has no label", "unlabelled"),
    ],
)
def test_columns_that_cannot_be_told_are_asked_for(tmp_path, query, message, hint):
    some = table(4).rename_column("label", "first").add_column("third", [1, 1, 0, 0])
    some = some.cast_column("third", datasets.ClassLabel(names=NAMES)).add_column("empty", [1, -1, 0, 0])
    some.save_to_disk(tmp_path / "saved")
    with pytest.raises(SlimcvError, match=message) as caught:
        find(f"hf:{tmp_path}/saved{query}")
    assert hint in caught.value.hint


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nowhere", "no such file"),
        ("empty", "no pictures in tables"),
        ("bad.tar", "cannot read"),
        ("bad.parquet", "cannot read"),
    ],
)
def test_what_is_no_table_is_refused_in_words(tmp_path, name, message, capfd):
    (tmp_path / "empty").mkdir()
    for bad in ("bad.tar", "bad.parquet"):
        (tmp_path / bad).write_bytes(b"no table" * 200)
    with pytest.raises(SlimcvError, match=message):
        find(f"hf:{tmp_path}/{name}")
    assert capfd.readouterr() == ("", "")


def test_without_the_library_the_hint_tells_how_to_install_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(SlimcvError, match="needs the library") as caught:
        find(f"hf:{tmp_path}")
    assert caught.value.hint == "pip install 'slimcv[hf]'"
