"""The layers of a profile under this machine's roofline, as an SVG picture (Williams et al. 2009)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from slimcv.report import figures
from slimcv.report.chart import drawn_text, safe

WIDTH, HEIGHT = 760, 440
LEFT, RIGHT, TOP, BOTTOM = 80, 30, 50, 60
_PRECISIONS = (("fp32_gflops", "fp32"), ("bf16_gflops", "bf16"), ("int8_gflops", "int8"))
_SMALLEST, _LARGEST = 3.0, 14.0
"""Radii in pixels of a layer without time and of one with all of it."""
_NAMED = 6


def roofline(profile: Mapping[str, Any]) -> str:
    """An SVG document: reached GFLOP/s over operations a byte, the area of a dot being its share of the time.

    Layers without products, and those merged into others, have no dot. Names are text whatever they hold.
    """
    dots = [layer for layer in profile["layers"] if layer["gflops"] and layer["intensity"]]
    limits = profile["limits"]
    across = _span([layer["intensity"] for layer in dots] + [1.0, 100.0])
    peaks = [limits[key] for key, _ in _PRECISIONS if limits[key]]
    upward = _span([layer["gflops"] for layer in dots] + peaks)
    title = f"{profile['model']['name']} in {profile['totals']['runtime']}: roofline"
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        'font-family="sans-serif" font-size="12">',
        f"<title>{safe(title)}</title>",
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
        drawn_text(LEFT, 28, title, size=16),
        *_axes(across, upward),
        *_roofs(limits, across, upward),
        *_dots(dots, across, upward),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def _roofs(
    limits: Mapping[str, Any], across: tuple[float, float], upward: tuple[float, float]
) -> Iterator[str]:
    """For each precision the memory's slope up to the peak, then the peak."""
    for key, name in _PRECISIONS:
        peak = limits[key]
        if not peak:
            continue
        level, slope = math.log10(peak), math.log10(limits["memory_gbytes"])
        low, high = across
        # Below the axis the slope is left out, not drawn along it.
        start = max(low, upward[0] - slope)
        ridge = min(high, max(start, level - slope))
        points = [(at, min(level, at + slope)) for at in (start, ridge, high)]
        path = " ".join(f"{_x(x, across):.1f},{_y(y, upward):.1f}" for x, y in points)
        yield f'<polyline points="{path}" fill="none" stroke="#444" stroke-width="1.5"/>'
        label = f"{name} {figures.significant(peak)} GFLOP/s"
        yield drawn_text(WIDTH - RIGHT, _y(level, upward) - 5, label, anchor="end")
    memory = f"memory {figures.significant(limits['memory_gbytes'])} GB/s"
    yield drawn_text(LEFT + 6, HEIGHT - BOTTOM - 8, memory)


def _dots(
    layers: Sequence[Mapping[str, Any]], across: tuple[float, float], upward: tuple[float, float]
) -> Iterator[str]:
    slowest = sorted(layers, key=lambda layer: -layer["share"])
    for place, layer in enumerate(slowest):
        x, y = _x(math.log10(layer["intensity"]), across), _y(math.log10(layer["gflops"]), upward)
        radius = _SMALLEST + (_LARGEST - _SMALLEST) * math.sqrt(layer["share"])
        limit = "memory" if layer["bound"] == "memory" else "CPU"
        told = (
            f"{layer['name']}: {figures.milliseconds(layer['ms'])}, "
            f"{figures.significant(layer['gflops'])} GFLOP/s, "
            f"{figures.share(layer['roofline_share'])} of what the {limit} allows"
        )
        colour = "#d95f02" if layer["bound"] == "memory" else "#1f6fb2"
        yield (
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius:.1f}" fill="{colour}" fill-opacity="0.7">'
            f"<title>{safe(told)}</title></circle>"
        )
        if place < _NAMED:
            anchor, beside = ("end", -radius - 3) if x > WIDTH / 2 else ("start", radius + 3)
            yield drawn_text(x + beside, y + 4, str(layer["name"]), anchor=anchor, size=11)


def _axes(across: tuple[float, float], upward: tuple[float, float]) -> Iterator[str]:
    floor = HEIGHT - BOTTOM
    for power in range(math.ceil(across[0]), math.floor(across[1]) + 1):
        x = _x(power, across)
        yield f'<line x1="{x:.1f}" y1="{TOP}" x2="{x:.1f}" y2="{floor}" stroke="#e6e6e6"/>'
        yield drawn_text(x, floor + 18, f"{10.0**power:g}", anchor="middle")
    for power in range(math.ceil(upward[0]), math.floor(upward[1]) + 1):
        y = _y(power, upward)
        yield f'<line x1="{LEFT}" y1="{y:.1f}" x2="{WIDTH - RIGHT}" y2="{y:.1f}" stroke="#e6e6e6"/>'
        yield drawn_text(LEFT - 8, y + 4, f"{10.0**power:g}", anchor="end")
    yield drawn_text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 15, "operations a byte", anchor="middle")
    yield drawn_text(LEFT - 60, TOP - 8, "GFLOP/s")


def _span(values: Sequence[float]) -> tuple[float, float]:
    """The powers of ten that a logarithmic axis goes from and to."""
    exponents = [math.log10(value) for value in values if value > 0]
    return min(exponents) - 0.2, max(exponents) + 0.2


def _x(exponent: float, span: tuple[float, float]) -> float:
    return LEFT + (exponent - span[0]) / (span[1] - span[0]) * (WIDTH - RIGHT - LEFT)


def _y(exponent: float, span: tuple[float, float]) -> float:
    return HEIGHT - BOTTOM - (exponent - span[0]) / (span[1] - span[0]) * (HEIGHT - BOTTOM - TOP)
