"""Tables that fit a terminal."""

import pytest
from rich.cells import cell_len
from rich.text import Text

from slimcv.report.terminal import WIDTH, draw, shortened, table

LONG = "backbone.stages.2.blocks.13.depthwise.convolution"


def drawn(*arguments, **options):
    return draw([table(*arguments, **options)], colour=False)


def test_a_table_with_room_is_as_wide_as_what_it_holds():
    assert drawn(("layer", "ms"), [("conv1", "0.12"), ("fc", "12")], right={1}).splitlines() == [
        "",
        " layer    ms",
        " ───────────",
        " conv1  0.12",
        " fc       12",
        "",
    ]


def test_headings_are_broken_before_anything_is_shortened():
    text = drawn(("layer", *["milliseconds saved"] * 4), [(LONG[:20], *["1"] * 4)], right=range(1, 5))
    assert LONG[:20] in text
    assert max(map(len, text.splitlines())) <= WIDTH
    assert "saved" in text.splitlines()[2]


def test_names_are_shortened_in_the_middle_and_figures_never():
    figure = "1.05 ms (1.02–1.08)"
    text = drawn(("layer", *["ms"] * 3), [(LONG, *[figure] * 3)], right=range(1, 4))
    line = text.splitlines()[3]
    assert text.count(figure) == 3
    assert line.startswith(" backb")
    assert line.split()[0].endswith("lution")
    assert "…" in line
    assert len(line) <= WIDTH


def test_words_are_wrapped_before_names_are_shortened():
    text = drawn(("layer", "why"), [(LONG, "the reason is " + "long " * 30)], words={1})
    assert LONG in text
    assert text.count("long") == 30
    assert max(map(len, text.splitlines())) <= WIDTH


def test_no_table_is_wider_than_the_terminal_whatever_it_holds():
    text = drawn([f"heading {at}" for at in range(12)], [["12,345.67 ms"] * 12, [LONG] * 12])
    assert max(map(cell_len, text.splitlines())) <= WIDTH


@pytest.mark.parametrize("width", [1, 2, 7, 8, 20])
@pytest.mark.parametrize("name", ["", "conv1", LONG, "日本語の長い名前です"])
def test_a_shortened_name_fits_and_keeps_both_ends(name, width):
    shown = shortened(name, width)
    assert cell_len(shown) <= width
    if shown != name:
        head, _, tail = shown.partition("…")
        assert name.startswith(head)
        assert name.endswith(tail)
        assert len(head) <= len(tail) <= len(head) + 1


def test_a_colour_of_a_cell_stays_and_is_left_out_without_colour(monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    made = table(("outcome",), [(Text("passed", style="green"),)])
    assert "\x1b[32mpassed" in draw([made], colour=True)
    assert "\x1b" not in draw([made], colour=False)


def test_columns_of_words_share_the_room():
    text = drawn(("missing", "good for", "how"), [("why not " * 12,) * 3], names=(), words={0, 1, 2})
    assert text.splitlines()[3].count("why not why not") == 3
    assert max(map(len, text.splitlines())) <= WIDTH
