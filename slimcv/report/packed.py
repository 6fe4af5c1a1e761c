"""What packing came to, drawn: each file with its bytes, zipped too, and how many times smaller it became."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from slimcv.quoting import cell, one_line
from slimcv.report import as_json, check_format
from slimcv.report.markdown import grid
from slimcv.report.terminal import draw, table

_HEADINGS = ("", "bytes", "zipped", "packed is smaller by", "than zipped by")


def render_packed(found: Mapping[str, Any], format: str, *, colour: bool = False) -> str:
    """A `Packed.as_json()` as text, JSON or Markdown. Raises SlimcvError on an unknown format."""
    check_format(format)
    if format == "json":
        return as_json(found)
    lines, notes = list(_lines(found)), list(_notes(found))
    if format == "markdown":
        return "\n\n".join([f"# {cell(found['path'])}", grid(_HEADINGS, lines, left=1), *notes]) + "\n"

    from rich.text import Text

    drawn = table(_HEADINGS, lines, right={1, 2, 3, 4})
    return draw([Text(one_line(found["path"])), drawn, *map(Text, notes)], colour=colour)


def _lines(found: Mapping[str, Any]) -> Iterator[tuple[str, str, str, str, str]]:
    packed = found["bytes"]
    for name, sizes in (("original", found["original"]), ("ONNX", found["model"])):
        if sizes is not None:
            size, zipped = sizes["bytes"], sizes["zipped_bytes"]
            yield name, f"{size:,}", f"{zipped:,}", _times(size / packed), _times(zipped / packed)
    yield "packed", f"{packed:,}", "", "", ""


def _notes(found: Mapping[str, Any]) -> Iterator[str]:
    parts = (("weights", "tensor_bytes"), ("graph", "graph_bytes"), ("manifest", "manifest_bytes"))
    yield "Packed: " + ", ".join(f"{name} {found[key]:,}" for name, key in parts) + " bytes."
    if found["sample_bytes"]:
        yield (
            f"Golden samples, which slimcv verify compares, take {found['sample_bytes']:,} more bytes; "
            f"without them the file has {found['bytes'] - found['sample_bytes']:,}."
        )
    if found["ways"]:
        yield "Tensors: " + "; ".join(f"{count} {way}" for way, count in found["ways"].items()) + "."
    if found["stripped_bytes"] is not None:
        yield (
            f"Stripped: unpacking gives an ONNX file of {found['stripped_bytes']:,} bytes "
            "with the same outputs, without notes and with short names."
        )


def _times(ratio: float) -> str:
    return f"{ratio:,.0f}×" if ratio >= 100 else f"{ratio:.2f}×" if ratio < 10 else f"{ratio:.1f}×"
