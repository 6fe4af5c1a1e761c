"""Which layer bears what, drawn: strict JSON, tables on a terminal and in Markdown."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from slimcv.quoting import cell, one_line
from slimcv.report import figures
from slimcv.report.document import as_plain
from slimcv.report.markdown import facts, grid, repeating
from slimcv.report.terminal import draw, table
from slimcv.results import SCHEMA_VERSION, Record

if TYPE_CHECKING:
    from rich.console import RenderableType

UNCHANGED, FAILED = "∞", "NaN"
_NAMED = 3

_Cell = Mapping[str, Any]


def build(
    records: Sequence[Record],
    *,
    model: Mapping[str, Any],
    data: Mapping[str, Any],
    threads: int,
    seed: int,
    command: Sequence[str],
) -> dict[str, Any]:
    """The analysis as strict JSON data, from the records of slimcv.sensitivity.analysis.

    `layers` are in order of execution; each has a cell (see slimcv.sensitivity.analysis.Cell) by the key of
    every treatment. `most_sensitive` names the layers of each treatment, the most sensitive first.
    """
    from slimcv.sensitivity import treatments

    original, *rest = records
    rows = [record.details for record in rest]
    known = [{"key": one.key, "title": one.title, "says": one.says} for one in treatments(levels=1)]
    plain: dict[str, Any] = as_plain(
        {
            "schema_version": SCHEMA_VERSION,
            "model": model,
            "data": {
                **data,
                "measured_images": original.details["measured_images"],
                "fitted_images": original.details["fitted_images"],
            },
            "top1": original.details["top1"],
            "threads": threads,
            "seed": seed,
            "treatments": known,
            "layers": rows,
            "most_sensitive": {one["key"]: _ranked(rows, one["key"]) for one in known},
            "environment": original.details["environment"],
            "command": command,
            "seconds": sum(record.seconds for record in records),
        }
    )
    return plain


def _ranked(rows: Sequence[Mapping[str, Any]], key: str) -> list[str]:
    cells = {row["name"]: row["treatments"][key] for row in rows}
    errors = {name: math.inf if fails(cell) else cell["error"] for name, cell in cells.items()}
    known = {name: error for name, error in errors.items() if error is not None}
    return sorted(known, key=known.__getitem__, reverse=True)


def fails(cell: _Cell) -> bool:
    """Whether the treatment applies, but leaves outputs that are no numbers any more."""
    return cell["error"] is None and cell["bytes"] is not None


def render_sensitivity(found: Mapping[str, Any], format: str, *, colour: bool = False) -> str:
    """What `build` made as text, JSON or Markdown. Raises SlimcvError on an unknown format."""
    from slimcv.report import as_json, check_format

    check_format(format)
    if format == "json":
        return as_json(found)
    return _markdown(found) if format == "markdown" else _text(found, colour=colour)


def decibels(cell: _Cell) -> str:
    """The SQNR of a cell as a number; a sign where it is infinite, none at all or not measured."""
    if fails(cell):
        return FAILED
    if cell["error"] is None:
        return figures.NOT_MEASURED
    return UNCHANGED if cell["sqnr_db"] is None else f"{cell['sqnr_db']:.1f}".replace("-", "−")


def _loss(cell: _Cell) -> str:
    """SQNR, and the points of top-1 lost where there are any."""
    text, drop = decibels(cell), cell["top1_drop"]
    return f"{text} {-drop:+.1f}".replace("-", "−") if drop else text


def _headings(found: Mapping[str, Any]) -> list[str]:
    return [one["title"] for one in found["treatments"]]


def _losses(found: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    for row in found["layers"]:
        yield row["name"], *(_loss(row["treatments"][one["key"]]) for one in found["treatments"])


def _bytes(found: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    for row in found["layers"]:
        cells = (row["treatments"][one["key"]] for one in found["treatments"])
        saved = (figures.size(cell["bytes_saved"]).replace("-", "−") for cell in cells)
        yield row["name"], figures.size(row["bytes"]), *saved


def _times(found: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    for row in found["layers"]:
        cells = (row["treatments"][one["key"]] for one in found["treatments"])
        yield row["name"], _hundredths(row["ms"]), *(_hundredths(cell["ms_saved"]) for cell in cells)


def _hundredths(value: float | None) -> str:
    """Milliseconds; what was not measured but is 0 by construction is 0."""
    if value is None:
        return figures.NOT_MEASURED
    return f"{value:.2f}".replace("-", "−") if value else "0"


def _notes(found: Mapping[str, Any]) -> Iterator[str]:
    """How the figures came about, which layers are worst, what the signs mean, and why cells are empty."""
    for one in found["treatments"]:
        worst = ", ".join(found["most_sensitive"][one["key"]][:_NAMED])
        yield f"{one['title']}: {one['says']}" + (f"; most sensitive: {worst}" if worst else "")
    data = found["data"]
    yield (
        f"Outputs and top-1 ({figures.percent(found['top1'])} as it is) are those of "
        f"{data['measured_images']} training pictures; ranges and fits come from {data['fitted_images']}. "
        "Each layer is changed alone, nothing is trained."
    )
    threads = f"{found['threads']} thread{'s' if found['threads'] != 1 else ''}"
    yield (
        "Bytes are estimated. Milliseconds are those of the layer alone in eager PyTorch, one picture, "
        f"{threads}, channels_last, INT8 by oneDNN's kernel; pruned and clustered weights save none."
    )
    yield (
        f"{UNCHANGED}: the outputs stay the same. {FAILED}: they are no numbers any more, nothing is more "
        f"sensitive. {figures.NOT_MEASURED}: does not apply:"
    )
    for one in found["treatments"]:
        reasons: dict[str, int] = {}
        for row in found["layers"]:
            cell = row["treatments"][one["key"]]
            silent = cell["ms_saved"] is None and cell["ms_reason"]
            refused = None if fails(cell) else cell["reason"]
            reason = refused or (f"no ms: {cell['ms_reason']}" if silent else None)
            if reason:
                reasons[reason] = reasons.get(reason, 0) + 1
        for reason, count in reasons.items():
            layers = f"{count} layer{'s' if count != 1 else ''}"
            yield f"  {one['title']}, {layers}: {reason}"


_LOSS = "Loss: SQNR of the outputs in dB (higher is better), points of top-1 where it changed"
_BYTES = "Gain: bytes saved, of those the layer takes in a packed file"
_TIMES = "Gain: milliseconds saved, of those the layer takes alone"


def _text(found: Mapping[str, Any], *, colour: bool) -> str:
    from rich.padding import Padding
    from rich.text import Text

    title = f"{one_line(found['model']['name'])} · {figures.duration(found['seconds'])}"
    parts: list[RenderableType] = [Text(title), ""]
    for heading, more, lines in (
        (_LOSS, (), _losses(found)),
        (_BYTES, ("as it is",), _bytes(found)),
        (_TIMES, ("as it is",), _times(found)),
    ):
        cells = [[one_line(text) for text in line] for line in lines]
        headings = ("layer", *more, *_headings(found))
        parts += [Text(heading, style="bold"), table(headings, cells, right=range(1, len(headings)))]
    for line in _notes(found):
        parts.append(Padding(Text(one_line(line)), (0, 0, 0, len(line) - len(line.lstrip()))))
    return draw(parts, colour=colour)


def _markdown(found: Mapping[str, Any]) -> str:
    sections = [
        f"# {cell(found['model']['name'])}: which layer bears what",
        f"## {cell(_LOSS)}",
        grid(("layer", *_headings(found)), _losses(found)),
        "![SQNR by layer and treatment](sensitivity.svg)",
        f"## {cell(_BYTES)}",
        grid(("layer", "as it is", *_headings(found)), _bytes(found)),
        f"## {cell(_TIMES)}",
        grid(("layer", "as it is", *_headings(found)), _times(found)),
        "\n".join(f"- {cell(line.strip())}" for line in _notes(found)),
        "## Data",
        facts(found["data"]),
        *repeating(found),
    ]
    return "\n\n".join(sections) + "\n"
