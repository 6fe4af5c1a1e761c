"""`slimcv predict`: pictures in, classes out, by a bundle."""

from __future__ import annotations

import csv
import io
import json
import sys
import time
from collections.abc import Iterable, Iterator
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from slimcv.cli.intake import log_to_stderr, tune_allocator_for
from slimcv.cli.live import erase
from slimcv.cli.options import RuntimeOption, ServedArgument, ThreadsOption

if TYPE_CHECKING:
    from slimcv.serving.listing import Row

EXIT_NOTHING_READ = 2


class Format(StrEnum):
    """How answers are printed."""

    TEXT = "text"
    JSON = "json"
    CSV = "csv"


def predict(
    bundle: ServedArgument,
    paths: Annotated[
        list[str],
        typer.Argument(metavar="PATHS...", help="Pictures, folders, globs; - reads a list from stdin."),
    ],
    top: Annotated[int, typer.Option(min=1, help="How many classes to name for each picture, at most.")] = 5,
    batch: Annotated[
        str, typer.Option(help="Pictures answered at once: a number, or auto (32 where there are as many).")
    ] = "auto",
    runtime: RuntimeOption = None,
    threads: ThreadsOption = None,
    output_format: Annotated[Format, typer.Option("--format", help="How to print answers.")] = Format.TEXT,
) -> None:
    """Say what is on pictures. One that cannot be read is a row with its error.

    Exit codes: 0 done, 2 bad input or not one picture that can be read.
    """
    log_to_stderr()

    from slimcv.serving import listing, load

    size = _batch(batch)
    files = listing.found(paths, sys.stdin if "-" in paths else ())
    predictor = load(bundle, runtime=runtime, threads=threads, wait=False)
    tune_allocator_for(predictor.runtime)
    top = top if predictor.classes is None else min(top, len(predictor.classes))
    rows = _told(listing.answered(predictor, files, top=top, batch=size), len(files))
    read, seen = 0, sys.stdout.isatty()
    for text, sound in _printed(rows, output_format, top=top):
        if seen:
            erase()
        sys.stdout.write(text)
        read += sound
    erase()
    if not read:
        raise typer.Exit(EXIT_NOTHING_READ)


def _batch(text: str) -> int:
    from slimcv.errors import SlimcvError
    from slimcv.serving.predictor import BATCH

    if text == "auto":
        return BATCH
    if not text.isdecimal() or not 1 <= int(text) <= 4096:
        raise SlimcvError(f"--batch {text}: not a number from 1 to 4096", "give a number, or auto")
    return int(text)


def _told(rows: Iterable[Row], count: int) -> Iterator[Row]:
    """The rows as they come, with how far it has got on stderr."""
    from slimcv.train.progress import Progress

    progress, begun = Progress(), time.perf_counter()
    for number, row in enumerate(rows, start=1):
        if progress.due:
            speed = number / (time.perf_counter() - begun)
            left = (count - number) / speed
            text = f"{number:,}/{count:,} pictures, {speed:.0f} images/s, ETA {left:.0f} s"
            progress.tell(text, share=number / count)
        yield row


def _printed(rows: Iterable[Row], output_format: Format, *, top: int) -> Iterator[tuple[str, bool]]:
    """Pieces of the output, and whether each is the answer for a picture."""
    from slimcv.quoting import one_line

    if output_format is Format.JSON:
        opening = "[\n"
        for row in rows:
            yield f"{opening}  {json.dumps(_as_json(row), ensure_ascii=False)}", row.error is None
            opening = ",\n"
        yield ("[]\n" if opening == "[\n" else "\n]\n"), False
    elif output_format is Format.CSV:
        names = [f"{kind}_{place}" for place in range(1, top + 1) for kind in ("label", "probability")]
        yield _csv(["path", *names, "error"]), False
        for row in rows:
            yield _csv([row.path, *_cells(row, top), row.error or ""]), row.error is None
    else:
        for row in rows:
            said = "  ".join(f"{one_line(label)} {100 * chance:.1f} %" for label, chance in _pairs(row))
            yield f"{one_line(row.path)}  {said or f'error: {row.error}'}\n", row.error is None


def _pairs(row: Row) -> list[tuple[str, float]]:
    found = row.prediction
    return [] if found is None else list(zip(found.labels, found.probabilities, strict=True))


def _as_json(row: Row) -> dict[str, Any]:
    found = row.prediction
    classes = (
        []
        if found is None
        else [
            {"label": label, "index": index, "probability": chance}
            for label, index, chance in zip(found.labels, found.indices, found.probabilities, strict=True)
        ]
    )
    return {"path": row.path, "classes": classes, "error": row.error}


def _cells(row: Row, top: int) -> list[str]:
    cells = [text for label, chance in _pairs(row) for text in (label, f"{chance:.6g}")]
    return cells + [""] * (2 * top - len(cells))


def _csv(cells: list[str]) -> str:
    line = io.StringIO()
    csv.writer(line, lineterminator="\n").writerow(cells)
    return line.getvalue()
