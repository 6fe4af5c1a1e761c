"""`slimcv doctor`: what this machine can do, what is missing, and how to get it."""

from __future__ import annotations

import sys

import typer

from slimcv.cli.options import Format, FormatOption

EXIT_BROKEN = 2


def doctor(output_format: FormatOption = Format.TEXT) -> None:
    """Say what this machine and this installation can do, what is missing and how to get it.

    Exit codes: 0 slimcv works here, 2 it does not.
    """
    from slimcv import doctor as examination
    from slimcv.report import wants_colour
    from slimcv.report.doctor import render_diagnosis

    found = examination.examine()
    drawable = all(library.works for library in found.libraries if library.name == "rich")
    chosen = Format.MARKDOWN if output_format is Format.TEXT and not drawable else output_format
    print(render_diagnosis(found.as_json(), chosen.value, colour=wants_colour(sys.stdout)), end="")
    if not found.works:
        raise typer.Exit(EXIT_BROKEN)
