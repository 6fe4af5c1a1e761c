"""Many files: found, answered in order, the broken ones named."""

import pytest

import slimcv
from slimcv.errors import SlimcvError
from slimcv.serving import listing


@pytest.fixture
def predictor(folder):
    return slimcv.load(folder, threads=1)


def test_files_folders_globs_and_lists_are_found_in_order(pictures):
    one = str(pictures / "green" / "3.png")
    below = listing.found([str(pictures / "blue")])
    assert [path.rsplit("/", 1)[1] for path in below] == [f"{number}.png" for number in range(6)]
    assert listing.found([one, "-"], ["a.jpg\n", "\n", "b.jpg\n"]) == [one, "a.jpg", "b.jpg"]
    assert len(listing.found([str(pictures / "*" / "0.png")])) == 3
    assert len(listing.found([str(pictures)])) == 18


def test_folders_that_a_glob_matches_stand_for_their_pictures(pictures):
    everything = listing.found([str(pictures)])
    assert listing.found([str(pictures / "*")]) == everything
    assert listing.found([str(pictures / "[bg]*")]) == [path for path in everything if "red" not in path]
    assert sorted(listing.found([str(pictures / "**")])) == sorted(everything), "each of them once"


def test_a_word_without_a_picture_is_named_beside_others(pictures, tmp_path, caplog):
    (tmp_path / "bare").mkdir()
    words = [str(tmp_path / "bare"), str(tmp_path / "*.jpg"), "-", str(pictures / "blue")]
    assert len(listing.found(words, ["\n"])) == 6
    assert caplog.messages == [f"{word}: no picture there" for word in words[:3]]


def test_nothing_found_is_refused(tmp_path):
    with pytest.raises(SlimcvError, match="no pictures"):
        listing.found([str(tmp_path)])


def test_rows_come_in_the_order_of_the_files_whatever_the_batch(predictor, pictures):
    paths = listing.found([str(pictures)])
    for batch in (1, 4, 64):
        rows = list(listing.answered(predictor, paths, batch=batch))
        assert [row.path for row in rows] == paths
        assert all(row.prediction.label == row.path.split("/")[-2] for row in rows)


def test_a_broken_picture_is_a_row_and_not_an_end(predictor, pictures, tmp_path):
    (tmp_path / "broken.jpg").write_bytes(b"no picture")
    paths = [str(tmp_path / "broken.jpg"), str(pictures / "blue" / "0.png"), str(tmp_path / "absent.png")]
    rows = list(listing.answered(predictor, paths))
    assert [row.error is None for row in rows] == [False, True, False]
    assert rows[0].error == "not a picture of a known format"
    assert rows[1].prediction.label == "blue"
