"""`slimcv report`: a finished run as a page, or in another form; several side by side."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from slimcv.cli.live import say
from slimcv.errors import SlimcvError


class Form(StrEnum):
    """What a report is written as."""

    HTML = "html"
    MD = "md"
    JSON = "json"
    CSV = "csv"


def report(
    runs: Annotated[
        list[Path],
        typer.Argument(
            metavar="RUN...",
            help="Folders of slimcv optimize or ladder, or what one of them, bench or profile printed with "
            "--format json.",
        ),
    ],
    form: Annotated[Form, typer.Option("--format", help="What to write.")] = Form.HTML,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Where to write it. Default: report.html in RUN, comparison.html here for several, "
            "other formats to the terminal."
        ),
    ] = None,
    show: Annotated[bool, typer.Option("--open", help="Open the page in the browser.")] = False,
) -> None:
    """Write a finished RUN as one HTML page, or as Markdown, JSON or CSV; several runs side by side."""
    if show and form is not Form.HTML:
        raise SlimcvError(f"--open shows pages, not {form.value}", "leave --format away, or --open")

    from slimcv.report.reading import read
    from slimcv.report.showing import show as shown

    found = [read(path) for path in runs]
    text = shown(found, form.value)
    target = out
    if target is None and form is Form.HTML:
        alone = runs[0] / "report.html" if runs[0].is_dir() else runs[0].with_suffix(".html")
        target = alone if len(runs) == 1 else Path("comparison.html")
    if target is None:
        print(text, end="")
        return
    _write(target, text)
    say(f"written to {target}")
    if show:
        import webbrowser

        if not webbrowser.open(target.resolve().as_uri()):
            say("no browser was found to show it")


def _write(target: Path, text: str) -> None:
    """The page of a bundle is one of its files: what its manifest says of it is written anew too."""
    from slimcv import bundle
    from slimcv.writing import write_text

    try:
        if target.name == bundle.PAGE and target.parent.is_dir():
            bundle.renew(target.parent, bundle.PAGE, text.encode())
        else:
            write_text(target, text)
    except OSError as error:
        raise SlimcvError(f"{target}: {error.strerror or error}", "name another file with --out") from error
