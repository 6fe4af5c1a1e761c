"""Numbers as words."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slimcv import report
from slimcv.report import figures
from slimcv.report.bench import render_bench
from slimcv.report.ladder import render_ladder


@pytest.mark.parametrize(
    ("value", "words"),
    [(0, "0"), (812, "812"), (1000, "1.00 k"), (295_000, "295 k"), (999_950, "1.00 M"),
     (52_595_399, "52.6 M"), (2_638_000_000, "2.64 G"), (None, "–")],
)  # fmt: skip
def test_counts_are_humanised_to_three_digits(value, words):
    assert figures.count(value) == words


@pytest.mark.parametrize(
    ("value", "words"), [(512, "512 B"), (330_000, "330 kB"), (210_377_874, "210 MB"), (None, "–")]
)
def test_sizes_are_humanised(value, words):
    assert figures.size(value) == words


@pytest.mark.parametrize(
    ("value", "words"),
    [(78.126, "78.1 ms"), (1.0749, "1.07 ms"), (0.09996, "0.100 ms"), (1234.5, "1,230 ms")],
)
def test_latencies_without_spread_have_three_digits(value, words):
    assert figures.milliseconds(value, spread=0.0) == words


def test_of_a_latency_whose_spread_nobody_knows_two_digits_are_told():
    assert figures.milliseconds(78.126) == "78 ms"
    assert figures.milliseconds(0.09996) == "0.10 ms"
    assert figures.milliseconds(1234.5) == "1,200 ms"


def test_a_wide_spread_leaves_two_digits():
    assert figures.milliseconds(78.126, spread=0.08) == "78 ms"
    assert figures.times(1.3594, "faster", "slower", digits=2) == "1.4× faster"


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [(1000, 3, "−99.7 %"), (100_000, 4, "−99.996 %"), (100, 0, "−100 %"), (100, 150, "+50.0 %"),
     (100, 100, "unchanged"), (0, 5, "–"), (None, 5, "–"), (5, None, "–")],
)  # fmt: skip
def test_a_reduction_says_all_only_when_nothing_is_left(before, after, words):
    assert figures.reduction(before, after) == words


@pytest.mark.parametrize(
    ("ratio", "words"),
    [(43.21, "43.2× faster"), (0.5, "2.00× slower"), (1.0, "unchanged"), (1.001, "unchanged"), (None, "–")],
)
def test_a_factor_below_one_is_called_slower(ratio, words):
    assert figures.times(ratio, "faster", "slower") == words


@pytest.mark.parametrize(
    ("value", "words"),
    [(1.5, "+1.5 points"), (-0.3, "−0.3 points"), (0.0, "unchanged"), (0.02, "< 0.1 points")],
)
def test_differences_of_accuracy_are_points(value, words):
    assert figures.points(value) == words


@pytest.mark.parametrize(
    ("value", "words"),
    [(1.0, "100 %"), (0.9999, "> 99.9 %"), (0.974, "97.4 %"), (0.0001, "< 0.1 %"), (0.0, "0 %")],
)
def test_a_share_is_whole_only_when_it_is(value, words):
    assert figures.share(value) == words


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.002, "< 0.1 s"), (0.82, "0.82 s"), (42, "42 s"), (185, "3 min 05 s"), (3720, "1 h 02 min")],
)
def test_durations_are_in_the_unit_that_suits_them(seconds, words):
    assert figures.duration(seconds) == words


@pytest.mark.parametrize(
    ("value", "uncertainty", "words"),
    [(78.126, 0.9, "78.1"), (78.126, 6.2, "78"), (78.126, 2.1, "78.1"), (78.126, 21, "78"),
     (78.126, 60, "80"), (1.2345, 0.0001, "1.23"), (0.0123, 0.002, "0.0123"), (5, 0, "5.00"), (0, 1, "0")],
)  # fmt: skip
def test_a_number_keeps_the_digits_that_its_uncertainty_leaves(value, uncertainty, words):
    assert figures.rounded(value, uncertainty) == words


@given(st.floats(0.01, 1e4), st.floats(1e-4, 1.0))
def test_rounding_never_moves_a_number_by_more_than_its_uncertainty(value, share):
    shown = float(figures.rounded(value, share * value).replace(",", ""))
    assert abs(shown - value) <= max(share * value, 0.006 * value)


@pytest.mark.parametrize(
    ("ratio", "low", "high", "words"),
    [(43.21, 42.85, 43.93, "43.2× faster (42.9–43.9)"), (1.5, 1.1, 1.9, "1.5× faster (1.1–1.9)"),
     (0.5, 0.4, 0.6, "2.0× slower (1.7–2.5)"), (2.0, 2.0, 2.0, "2.00× faster (2.00–2.00)")],
)  # fmt: skip
def test_a_factor_and_its_interval_are_rounded_alike(ratio, low, high, words):
    assert figures.factor(ratio, low, high, "faster", "slower") == words


@pytest.mark.parametrize(("value", "words"), [(0.0004, "< 0.001"), (0.0391, "0.039"), (1.0, "1.0")])
def test_a_p_value_has_two_digits(value, words):
    assert figures.probability(value) == words
    assert figures.p_value(value) == (f"p {words}" if words.startswith("<") else f"p = {words}")


@pytest.mark.parametrize(
    ("form", "kind"), [("text", "run"), ("markdown", "run"), ("text", "ladder"), ("text", "bench")]
)
def test_an_allocator_that_cannot_be_tuned_is_not_called_tuned(make_report, results, form, kind):
    """Documents of an older version do not say, and theirs was tuned."""
    render = {"run": report.render, "ladder": render_ladder, "bench": render_bench}[kind]
    document = make_report() if kind == "run" else json.loads(results(kind).read_text("utf-8"))
    assert "allocator tuned" in " ".join(render(document, form).split())
    document["environment"] = {**document["environment"], "allocator_tunable": False}
    text = " ".join(render(document, form).replace("\\", "").split())
    assert "allocator tuned" not in text
    assert "allocator not tuned" in text
