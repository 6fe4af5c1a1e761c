"""`slimcv ladder`: what each technique gives, row upon row, for one's own model."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from slimcv.cli import completion, typed
from slimcv.cli.intake import caching, load_model, log_to_stderr
from slimcv.cli.live import say
from slimcv.cli.options import (
    ArchOption,
    CacheLimitOption,
    CacheOption,
    CodeOption,
    DataOption,
    Format,
    FormatOption,
    InputOption,
    MeanOption,
    ModelArgument,
    NoCacheOption,
    SeedOption,
    StdOption,
    ThreadsOption,
    TrackOption,
)
from slimcv.errors import SlimcvError
from slimcv.optimization import Caching, default_folder, make_context

if TYPE_CHECKING:
    from slimcv.ladder.rows import Row
    from slimcv.run import Run
    from slimcv.step import Context

FILES = ("ladder.json", "ladder.md", "ladder.svg", "report.html")
EPOCHS = 6


def ladder(
    model: ModelArgument,
    data: DataOption = None,
    rows: Annotated[
        str,
        typer.Option(help="Which rows; each stands on those before it.", autocompletion=completion.rows),
    ] = "original,pooling,separable,compile,amp,fuse",
    epochs: Annotated[
        int, typer.Option(min=0, help="Epochs each row is trained for; 0 only times a few steps.")
    ] = EPOCHS,
    out: Annotated[Path | None, typer.Option(help="Where the result goes. Default: <model>-ladder/.")] = None,
    arch: ArchOption = None,
    code: CodeOption = None,
    input_shape: InputOption = None,
    mean: MeanOption = None,
    std: StdOption = None,
    threads: ThreadsOption = None,
    seed: SeedOption = 0,
    cache: CacheOption = None,
    cache_limit: CacheLimitOption = None,
    no_cache: NoCacheOption = False,
    track: TrackOption = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Discard the run that --out holds.")] = False,
    output_format: FormatOption = Format.TEXT,
) -> None:
    """Print what each technique does to MODEL's size, accuracy, training time and latency, row upon row.

    Writes ladder.json, ladder.md, ladder.svg, report.html and each row's recipe and weights. The same
    command goes on at the row where it stopped.
    """
    from slimcv import sidecar, tracking
    from slimcv.ladder.rows import chosen, plan

    tracker = tracking.find(track)
    names = chosen(rows)
    beside = sidecar.find(model)
    source = data or beside.folder()
    if source is None:
        raise SlimcvError("a ladder is trained and measured on pictures", "give them with --data DIR")
    kept = caching(cache, cache_limit, none=no_cache)
    log_to_stderr()

    from slimcv.measure import allocator, environment

    allocator.tune_or_tell()
    planned = plan(names, epochs=epochs, compiler=_has_compiler(), bf16=environment.has_bf16_instructions())
    variant = load_model(model, arch=arch, code=code, shape=input_shape, mean=mean, std=std, beside=beside)
    folder = out or default_folder(model, "ladder")
    context = make_context(
        variant, source, folder, threads=threads, seed=seed, kept=kept, classes=beside.classes
    )
    with _open_run(folder, planned, context, epochs=epochs, overwrite=overwrite) as run:
        document = _climb(
            planned, run, context, model=model, arch=arch, source=source, epochs=epochs, kept=kept
        )

    from slimcv import report
    from slimcv.report.ladder import render_ladder

    print(render_ladder(document, output_format.value, colour=report.wants_colour(sys.stdout)), end="")
    say(f"written to {folder}/")
    if tracker is not None:
        tracking.track(tracker, tracking.of_ladder(folder))


def _has_compiler() -> bool:
    from slimcv.runtimes import inductor

    try:
        inductor.require_compiler()
    except SlimcvError:
        return False
    return True


def _open_run(folder: Path, rows: tuple[Row, ...], context: Context, *, epochs: int, overwrite: bool) -> Run:
    from slimcv import optimization

    written = [[row.name, row.recipe, row.training] for row in rows]
    own = {"command": "ladder", "rows": written, "epochs": epochs}
    return optimization.open_folder(folder, context, "ladder", own=own, overwrite=overwrite)


def _climb(
    rows: tuple[Row, ...],
    run: Run,
    context: Context,
    *,
    model: str,
    arch: str | None,
    source: str,
    epochs: int,
    kept: Caching,
) -> dict[str, Any]:
    """All rows measured, and the result written as JSON, Markdown and a picture."""
    from dataclasses import replace

    from slimcv.ladder import Pictures, climb, measured_rows
    from slimcv.report.html import render_html
    from slimcv.report.ladder import build, chart, render_ladder
    from slimcv.report.reading import of
    from slimcv.writing import write_text

    if not run.resumed:
        for name in FILES:
            (run.folder / name).unlink(missing_ok=True)
    context = replace(context, workdir=run.workdir)
    records = list(climb(rows, context, run, pictures=Pictures(source, kept.folder, kept.limit, kept.keep)))
    spec, dataset = context.teacher.input, context.data
    document = build(
        measured_rows(records),
        model={"name": Path(model).name, "source": model, "arch": arch, "input": str(spec)},
        data={
            "source": source,
            "fingerprint": dataset.fingerprint if dataset else None,
            "train": len(dataset.train) if dataset else 0,
            "val": len(dataset.val) if dataset else 0,
        },
        epochs=epochs,
        seed=context.seed,
        train_threads=context.train_threads,
        environment=records[-1].details["environment"],
        command=typed.command(),
        seconds=sum(record.seconds for record in records),
    )
    texts = (
        render_ladder(document, "json"),
        render_ladder(document, "markdown"),
        chart(document),
        render_html([of(document, run.folder)]),
    )
    for name, text in zip(FILES, texts, strict=True):
        write_text(run.folder / name, text)
    run.finish()
    return document
