"""`slimcv bench`: models, files and bundles timed against each other."""

from __future__ import annotations

import sys
import tempfile
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from slimcv.cli import completion, typed
from slimcv.cli.intake import log_to_stderr, numbers
from slimcv.cli.options import (
    ArchOption,
    CacheOption,
    CodeOption,
    DataOption,
    Format,
    FormatOption,
    HtmlOption,
    InputOption,
    MeanOption,
    SeedOption,
    StdOption,
    TrackOption,
)
from slimcv.cli.page import write_html
from slimcv.errors import SlimcvError

if TYPE_CHECKING:
    from slimcv.bench import Target
    from slimcv.data import Split


class Mode(StrEnum):
    """What is asked of a target."""

    LATENCY = "latency"
    THROUGHPUT = "throughput"


def bench(
    targets: Annotated[
        list[str],
        typer.Argument(metavar="TARGET...", help="Models, .onnx, OpenVINO .xml and .slim files, bundles."),
    ],
    data: DataOption = None,
    threads: Annotated[
        str | None, typer.Option(help="Threads a prediction may use, such as 1,2. Default: all allowed.")
    ] = None,
    batch: Annotated[str, typer.Option(help="Pictures a call, such as 1,32.")] = "1",
    mode: Annotated[
        Mode, typer.Option(help="latency: one call at a time; throughput: as many side by side as fit.")
    ] = Mode.LATENCY,
    streams: Annotated[
        int | None, typer.Option(min=1, help="Calls side by side in throughput mode. Default: what fits.")
    ] = None,
    runtime: Annotated[
        str | None,
        typer.Option(
            help="Runtime to use, or all. Default: a bundle's own, eager for a model.",
            autocompletion=completion.benched,
        ),
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Fewer calls, no memory.")] = False,
    arch: ArchOption = None,
    code: CodeOption = None,
    input_shape: InputOption = None,
    mean: MeanOption = None,
    std: StdOption = None,
    seed: SeedOption = 0,
    cache: CacheOption = None,
    html: HtmlOption = None,
    track: TrackOption = None,
    output_format: FormatOption = Format.TEXT,
) -> None:
    """Time TARGETs in turns on this machine, all against the first, with top-1 where --data is given.

    A target that cannot be run stays in the table with the reason. Exit codes: 0 done, 2 bad input or not one
    target that ran.
    """
    counts, batches = _counts("--threads", threads), _counts("--batch", batch)
    if streams is not None and mode is Mode.LATENCY:
        raise SlimcvError("--streams belongs to throughput", "add --mode throughput")
    from slimcv import sidecar, tracking

    tracker = tracking.find(track)
    log_to_stderr()

    from slimcv import bench as benching
    from slimcv import report, runtimes
    from slimcv.errors import nearest
    from slimcv.measure import allocator
    from slimcv.measure.threads import available
    from slimcv.report.bench import render_bench

    if runtime not in (None, "all", *runtimes.NAMES):
        raise SlimcvError(f"unknown runtime '{runtime}'", nearest(str(runtime), [*runtimes.NAMES, "all"]))
    allocator.tune_or_tell()
    counts = counts or [available() if mode is Mode.LATENCY else 1]
    together = None
    if mode is Mode.THROUGHPUT:
        together = benching.side_by_side(counts, allowed=available())
        if streams is not None:
            together = dict.fromkeys(counts, streams)
    besides = [sidecar.find(word) for word in targets]
    with tempfile.TemporaryDirectory(prefix="slimcv-bench-") as folder:
        found = [
            target
            for number, (word, beside) in enumerate(zip(targets, besides, strict=True))
            for target in benching.targets(
                word,
                Path(folder, str(number)),
                runtime=runtime,
                arch=arch,
                code=code or (),
                input=input_shape or beside.input,
                mean=numbers("--mean", mean) or beside.mean,
                std=numbers("--std", std) or beside.std,
            )
        ]
        able = [target for target in found if target.problem is None]
        split = None if data is None or not able else _split(data, able, seed=seed, cache=cache)
        rows = benching.compare(
            _distinct(found),
            threads=counts,
            batches=batches or [1],
            streams=together,
            split=split,
            quick=quick,
            seed=seed,
        )
        compared = benching.Comparison(mode.value, tuple(rows)).as_json()
    document = {**compared, "command": typed.command()}
    print(render_bench(document, output_format.value, colour=report.wants_colour(sys.stdout)), end="")
    write_html(html, document, command="bench")
    if tracker is not None:
        tracking.track(tracker, tracking.of_bench(document))
    if all(row["problem"] is not None for row in document["rows"]):
        raise typer.Exit(2)


def _counts(option: str, text: str | None) -> list[int] | None:
    if text is None:
        return None
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() and 1 <= int(part) <= 4096 for part in parts):
        raise SlimcvError(f"{option} {text}: not numbers separated by commas", "for example 1,2")
    return [int(part) for part in parts]


def _split(data: str, found: list[Target], *, seed: int, cache: Path | None) -> Split:
    from slimcv import data as pictures

    classes = next((target.classes for target in found if target.classes), None)
    return pictures.load(data, seed=seed, classes=classes, input=found[0].input, cache=cache).val


def _distinct(found: list[Target]) -> list[Target]:
    """Rows are told apart by their names: one that comes twice gets a number."""
    from dataclasses import replace

    seen: dict[str, int] = {}
    named = []
    for target in found:
        seen[target.name] = seen.get(target.name, 0) + 1
        again = seen[target.name]
        named.append(target if again == 1 else replace(target, name=f"{target.name} #{again}"))
    return named
