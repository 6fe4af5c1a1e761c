"""What is told of an error that another library raised."""

import pytest

from slimcv.errors import first_line, last_line


@pytest.mark.parametrize(
    ("said", "first", "last"),
    [
        ("one", "one", "one"),
        ("\n  one\ntwo\n\n", "one", "two"),
        ("", "ValueError", "ValueError"),
        (" \n ", "ValueError", "ValueError"),
    ],
)
def test_an_error_has_a_first_and_a_last_line_whatever_it_says(said, first, last):
    assert first_line(ValueError(said)) == first
    assert last_line(ValueError(said)) == last
