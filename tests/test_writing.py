"""Files that appear complete or not at all."""

import pytest

from slimcv.writing import complete, write_text


def test_a_file_takes_the_place_of_the_one_before(tmp_path):
    for text in ("first", "second"):
        write_text(tmp_path / "file", text)
        assert (tmp_path / "file").read_text() == text
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_nothing_appears_before_the_end(tmp_path):
    with complete(tmp_path / "file") as file:
        file.write(b"half")
        assert not (tmp_path / "file").exists()


def test_after_an_error_the_file_before_stays_and_nothing_else(tmp_path):
    write_text(tmp_path / "file", "whole")
    with pytest.raises(TypeError), complete(tmp_path / "file") as file:
        file.writelines([b"half", "not bytes"])
    assert (tmp_path / "file").read_text() == "whole"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_name_that_is_no_utf_8_gets_a_mark(tmp_path):
    write_text(tmp_path / "file", "caf\udce9")
    assert (tmp_path / "file").read_text("utf-8") == "caf?"


def test_what_the_system_refuses_is_told_as_it_is(tmp_path):
    with pytest.raises(FileNotFoundError):
        write_text(tmp_path / "absent" / "file", "text")


def test_a_full_disk_is_told_and_leaves_nothing(tmp_path):
    (tmp_path / ".file.partial").symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space"):
        write_text(tmp_path / "file", "text")
    assert list(tmp_path.iterdir()) == []
