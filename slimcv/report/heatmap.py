"""Which layer bears what as an SVG picture: rows are layers, columns treatments, dark is sensitive."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from slimcv.quoting import one_line
from slimcv.report import figures
from slimcv.report.chart import drawn_text, safe
from slimcv.report.sensitivity import FAILED, UNCHANGED, decibels, fails

CELL_WIDTH, CELL_HEIGHT, GAP = 92, 22, 2
TOP, BOTTOM, MARGIN = 84, 66, 16
LETTER = 7
_LONGEST = 44
"""Letters of a layer's name that are shown; the whole of it is in the cell's tooltip."""

BEST_DB = 50.0
"""From here on differences are not seen in any answer, and the colour stays the palest."""

_PALE, _DARK = (247, 251, 255), (8, 48, 107)
"""One hue from pale to dark, so that the order is seen in grey and by the colour-blind too."""


def heat_map(found: Mapping[str, Any]) -> str:
    """An SVG document of what slimcv.report.sensitivity.build made.

    Every cell shows its number, so that no colour is needed to read it, and tells all it stands for where a
    pointer rests on it. Whoever cannot see the picture has the same numbers in the tables beside it.
    """
    treatments, rows = found["treatments"], found["layers"]
    longest = max([len(_short(row["name"])) for row in rows], default=0)
    left = 2 * MARGIN + LETTER * max(longest, len("layer"))
    width = left + max(3, len(treatments)) * CELL_WIDTH + MARGIN
    height = TOP + len(rows) * CELL_HEIGHT + BOTTOM
    title = f"{one_line(found['model']['name'])}: which layer bears what"
    said = (
        f"SQNR of the outputs in decibels with one layer changed, for {len(rows)} layers and "
        f"{len(treatments)} treatments; darker is more sensitive."
    )
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img" '
        'aria-labelledby="title description" font-family="sans-serif" font-size="12">',
        f'<title id="title">{safe(title)}</title>',
        f'<desc id="description">{safe(said)}</desc>',
        f'<rect width="{width}" height="{height}" fill="white"/>',
        drawn_text(MARGIN, 28, title, size=16),
        drawn_text(MARGIN, 48, "SQNR of the outputs in dB, one layer changed at a time"),
        *(
            drawn_text(left + (at + 0.5) * CELL_WIDTH, TOP - 8, one["title"], anchor="middle")
            for at, one in enumerate(treatments)
        ),
        *(part for at, row in enumerate(rows) for part in _row(row, at, left=left, treatments=treatments)),
        *_legend(left, TOP + len(rows) * CELL_HEIGHT + 20),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def _row(row: Mapping[str, Any], at: int, *, left: float, treatments: list[dict[str, Any]]) -> Iterator[str]:
    top = TOP + at * CELL_HEIGHT
    yield drawn_text(left - 8, top + 15, _short(row["name"]), anchor="end")
    for column, one in enumerate(treatments):
        cell = row["treatments"][one["key"]]
        colour, ink = _colours(cell)
        x = left + column * CELL_WIDTH
        yield f"<g><title>{safe(_told(row, one, cell))}</title>"
        yield (
            f'<rect x="{x}" y="{top}" width="{CELL_WIDTH - GAP}" height="{CELL_HEIGHT - GAP}" '
            f'fill="{colour}" stroke="#b9c7d6" stroke-width="0.5"/>'
        )
        middle = x + (CELL_WIDTH - GAP) / 2
        yield drawn_text(middle, top + 15, decibels(cell), anchor="middle", colour=ink)
        yield "</g>"


def _legend(left: float, top: float) -> Iterator[str]:
    steps = 6
    for at in range(steps):
        value = BEST_DB * at / (steps - 1)
        colour, ink = _shade(value)
        yield (
            f'<rect x="{left + at * 40}" y="{top}" width="40" height="16" fill="{colour}" stroke="#b9c7d6" '
            'stroke-width="0.5"/>'
        )
        label = f"≥ {value:.0f}" if at == steps - 1 else f"{value:.0f}"
        yield drawn_text(left + at * 40 + 20, top + 12, label, anchor="middle", colour=ink)
    yield drawn_text(
        left,
        top + 34,
        f"dB; {UNCHANGED} unchanged; {FAILED} no numbers; {figures.NOT_MEASURED} does not apply",
    )


def _colours(cell: Mapping[str, Any]) -> tuple[str, str]:
    if fails(cell):
        return _shade(0.0)
    if cell["error"] is None:
        return "#ffffff", "#333333"
    return _shade(BEST_DB if cell["sqnr_db"] is None else cell["sqnr_db"])


def _shade(value: float) -> tuple[str, str]:
    """Fill and letters of a number of decibels; letters keep a contrast of 4.5 and more to the fill."""
    share = 1 - min(max(value / BEST_DB, 0.0), 1.0)
    parts = [round(pale + share * (dark - pale)) for pale, dark in zip(_PALE, _DARK, strict=True)]
    ink = "#ffffff" if contrast(parts, (255, 255, 255)) > contrast(parts, (0, 0, 0)) else "#000000"
    return "#" + "".join(f"{part:02x}" for part in parts), ink


def contrast(one: list[int] | tuple[int, ...], other: list[int] | tuple[int, ...]) -> float:
    """The contrast ratio of two sRGB colours, 1 to 21 (WCAG 2.2)."""
    lights = sorted(_luminance(colour) for colour in (one, other))
    return (lights[1] + 0.05) / (lights[0] + 0.05)


def _luminance(colour: list[int] | tuple[int, ...]) -> float:
    linear = [
        part / 255 / 12.92 if part / 255 <= 0.04045 else ((part / 255 + 0.055) / 1.055) ** 2.4
        for part in colour
    ]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def _told(row: Mapping[str, Any], treatment: Mapping[str, Any], cell: Mapping[str, Any]) -> str:
    """A cell in words."""
    name = f"{one_line(row['name'])}, {treatment['title']}"
    if cell["error"] is None and not fails(cell):
        return f"{name}: {cell['reason']}"
    parts = [cell["reason"] if fails(cell) else f"{decibels(cell)} dB"]
    if cell["top1_drop"] is not None:
        parts.append(f"top-1 {figures.points(-cell['top1_drop'])}")
    if cell["bytes_saved"] is not None:
        parts.append(f"{cell['bytes_saved']:,} bytes saved".replace("-", "−"))
    if cell["ms_saved"] is not None:
        parts.append(f"{cell['ms_saved']:.2f} ms saved".replace("-", "−"))
    return f"{name}: {', '.join(parts)}"


def _short(name: str) -> str:
    shown = one_line(name)
    return shown if len(shown) <= _LONGEST else "…" + shown[-_LONGEST + 1 :]
