"""The picture of accuracy against latency: well-formed, a point a row, no label over another."""

from itertools import combinations
from xml.etree import ElementTree

import pytest

from slimcv.report.chart import HEIGHT, LETTER, LINE, WIDTH, Point, accuracy_against_latency

SVG = "{http://www.w3.org/2000/svg}"


def drawn(*points, title="model.pt"):
    return ElementTree.fromstring(accuracy_against_latency(points, title=title))


def circles(picture):
    return [(float(dot.get("cx")), float(dot.get("cy"))) for dot in picture.iter(f"{SVG}circle")]


def labels(picture, names):
    return {
        text.text: (float(text.get("x")), float(text.get("y")))
        for text in picture.iter(f"{SVG}text")
        if text.text in names
    }


def test_faster_is_to_the_left_and_more_accurate_above():
    slow, fast = circles(drawn(Point("slow", 100.0, 80.0), Point("fast", 10.0, 90.0)))
    assert fast[0] < slow[0]
    assert fast[1] < slow[1]


def test_equal_ratios_of_latency_are_equally_far_apart():
    first, second, third = circles(
        drawn(Point("a", 1.0, 50.0), Point("b", 10.0, 50.0), Point("c", 100.0, 50.0))
    )
    assert second[0] - first[0] == pytest.approx(third[0] - second[0], abs=0.2)


def test_labels_of_neighbouring_points_do_not_cover_each_other():
    names = [f"+ technique {number}" for number in range(6)]
    found = labels(drawn(*(Point(name, 20.0 + 0.01 * at, 90.0) for at, name in enumerate(names))), names)
    assert len(found) == 6
    for (one, (x, y)), (other, (u, v)) in combinations(found.items(), 2):
        assert abs(y - v) >= LINE or x + LETTER * len(one) <= u or u + LETTER * len(other) <= x
    assert all(0 < y < HEIGHT and 0 < x < WIDTH for x, y in found.values())


def test_a_name_from_elsewhere_cannot_break_the_picture():
    picture = drawn(Point("<script>&\x1b", 1.0, 50.0), title="<b> & \u202e")
    assert not list(picture.iter("script"))
    assert picture.find(f"{SVG}title").text == "<b> & \ufffd: top-1 against latency"


@pytest.mark.parametrize("points", [[], [Point("alone", 3.0, 0.0)], [Point("a", 1.0, 100.0)] * 2])
def test_few_or_equal_points_are_drawn_too(points):
    assert len(circles(drawn(*points))) == len(points)
