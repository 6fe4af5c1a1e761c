"""`slimcv pack` and `slimcv unpack`: a model as one small file, and back."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from slimcv.cli.intake import log_to_stderr
from slimcv.cli.options import Format, FormatOption


def pack(
    source: Annotated[
        Path, typer.Argument(metavar="SOURCE", help="A bundle that slimcv optimize wrote, or an .onnx file.")
    ],
    out: Annotated[
        Path | None, typer.Option(help="The packed file. Default: SOURCE with the ending .slim.")
    ] = None,
    original: Annotated[
        Path | None, typer.Option(help="The file it all began with, to compare sizes with. It is not run.")
    ] = None,
    strip: Annotated[
        bool,
        typer.Option(
            "--strip", help="Leave out notes and names that no runtime computes with. Outputs stay the same."
        ),
    ] = False,
    with_samples: Annotated[
        bool,
        typer.Option(
            "--with-samples",
            help="Pack a bundle's golden samples too, which slimcv verify compares answers with.",
        ),
    ] = False,
    output_format: FormatOption = Format.TEXT,
) -> None:
    """Write a model as one .slim file, which slimcv.load and slimcv predict run and slimcv unpack undoes."""
    from slimcv import packed, report
    from slimcv.report.packed import render_packed

    log_to_stderr()
    document = packed.pack(
        source, out=out, original=original, strip=strip, with_samples=with_samples
    ).as_json()
    print(render_packed(document, output_format.value, colour=report.wants_colour(sys.stdout)), end="")


def unpack(
    source: Annotated[Path, typer.Argument(metavar="FILE", help="A .slim file.")],
    out: Annotated[
        Path | None, typer.Option(help="The ONNX file. Default: FILE with the ending .onnx.")
    ] = None,
    limit: Annotated[
        str | None, typer.Option(help="Most bytes that FILE may unpack to, such as 4GB, if you trust it.")
    ] = None,
) -> None:
    """Write the ONNX file that was packed, byte for byte."""
    from slimcv import packed
    from slimcv.cli.intake import bytes_of

    allowed = None if limit is None else round(bytes_of("--limit", limit))
    print(packed.unpack(source, out=out, limit=allowed))
