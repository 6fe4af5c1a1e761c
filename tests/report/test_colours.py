"""The page's colours are told apart by those who see no red or no green, on light and on dark ground."""

import re
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

from slimcv.report import html

STYLE = Path(html.__file__).with_name("style.css").read_text("utf-8")

SEEN = {
    "usual": np.eye(3),
    "protanopia": np.array(
        [
            [0.152286, 1.052583, -0.204868],
            [0.114503, 0.786281, 0.099216],
            [-0.003882, -0.048116, 1.051998],
        ]
    ),
    "deuteranopia": np.array(
        [
            [0.367322, 0.860646, -0.227968],
            [0.280085, 0.672501, 0.047413],
            [-0.011820, 0.042940, 0.968881],
        ]
    ),
}
"""What is seen of linear RGB: Machado, Oliveira and Fernandes 2009, severity 1.0."""

TOLD_APART = [
    ("before", "after"),
    ("better", "worse"),
    ("after", "worse"),
    ("front", "after"),
    *combinations(("part1", "part2", "part3", "part4", "part5", "rest"), 2),
]
"""Colours that stand side by side in one chart."""

DISTANCE = 10.0
"""In CIELAB 1976; 2.3 is just noticeable (Mahy, Van Eycken and Oosterlinck 1994)."""

CONTRAST = 3.0
"""Of a chart's parts against their ground (WCAG 2.2, 1.4.11)."""

_TO_XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])


def themes():
    """Light, and dark with what it leaves of light; each colour as linear RGB."""
    blocks = [
        dict(re.findall(r"--(\w+): (#\w{6});", block)) for block in re.findall(r":root \{([^}]*)\}", STYLE)
    ]
    light, dark = blocks[:2]  # The third is for paper.
    return {"light": light, "dark": {**light, **dark}}


def linear(colour):
    values = np.array(list(bytes.fromhex(colour[1:]))) / 255
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def lab(rgb):
    ratios = _TO_XYZ @ np.clip(rgb, 0, 1) / (_TO_XYZ @ np.ones(3))
    x, y, z = np.where(ratios > 216 / 24389, np.cbrt(ratios), (24389 / 27 * ratios + 16) / 116)
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


def luminance(colour):
    return float(_TO_XYZ[1] @ linear(colour))


@pytest.mark.parametrize("seen", SEEN)
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_colours_that_stand_together_are_told_apart(theme, seen):
    colours = themes()[theme]
    distances = {
        pair: float(np.linalg.norm(np.subtract(*(lab(SEEN[seen] @ linear(colours[name])) for name in pair))))
        for pair in TOLD_APART
    }
    assert min(distances.values()) >= DISTANCE, sorted(distances.items(), key=lambda one: one[1])[:3]


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_what_carries_meaning_stands_out_from_the_ground(theme):
    colours = themes()[theme]
    for name in ("after", "better", "worse", "front", "rest", "soft", "link", "ink"):
        light, dark = sorted((luminance(colours[name]), luminance(colours["ground"])), reverse=True)
        assert (light + 0.05) / (dark + 0.05) >= CONTRAST, name


def test_red_and_green_would_not_pass():
    distance = [
        np.linalg.norm(np.subtract(*(lab(SEEN[seen] @ linear(colour)) for colour in ("#b06000", "#7a7a00"))))
        for seen in ("usual", "deuteranopia")
    ]
    assert distance[0] > 2 * DISTANCE
    assert distance[1] < distance[0] / 2
