"""`slimcv sensitivity`: which layer bears what."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from slimcv.cli import typed
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
)
from slimcv.errors import SlimcvError
from slimcv.optimization import make_context

if TYPE_CHECKING:
    from slimcv.run import Run
    from slimcv.step import Context

FILES = ("sensitivity.json", "sensitivity.md", "sensitivity.svg")


def sensitivity(
    model: ModelArgument,
    data: DataOption = None,
    images: Annotated[
        int, typer.Option(min=1, max=4096, help="Training pictures outputs are compared on.")
    ] = 32,
    out: Annotated[
        Path | None, typer.Option(help="Where the result goes. Default: <model>-sensitivity/.")
    ] = None,
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
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Discard the run that --out holds.")] = False,
    output_format: FormatOption = Format.TEXT,
) -> None:
    """Say of each layer of MODEL what INT8, pruning, clustering, half the rank and separating it would do.

    Losses are in the outputs' SQNR and in top-1, gains in bytes and milliseconds, each layer changed alone.
    Writes sensitivity.json, sensitivity.md and the heat map sensitivity.svg. The same command goes on at the
    layer where it stopped.
    """
    from slimcv import sidecar

    beside = sidecar.find(model)
    source = data or beside.folder()
    if source is None:
        raise SlimcvError("sensitivity is measured on pictures", "give them with --data DIR")
    kept = caching(cache, cache_limit, none=no_cache)
    log_to_stderr()

    from slimcv import optimization, report
    from slimcv.measure import allocator
    from slimcv.report.sensitivity import render_sensitivity
    from slimcv.sensitivity.analysis import levels

    allocator.tune_or_tell()
    variant = load_model(model, arch=arch, code=code, shape=input_shape, mean=mean, std=std, beside=beside)
    folder = out or optimization.default_folder(model, "sensitivity")
    context = make_context(
        variant, source, folder, threads=threads, seed=seed, kept=kept, classes=beside.classes
    )
    own = {"command": "sensitivity", "images": images, "levels": levels()}
    with optimization.open_folder(
        folder, context, "sensitivity analysis", own=own, overwrite=overwrite
    ) as run:
        document = _written(run, context, images=images, model=model, arch=arch, source=source)
    print(render_sensitivity(document, output_format.value, colour=report.wants_colour(sys.stdout)), end="")
    say(f"written to {folder}/")


def _written(
    run: Run, context: Context, *, images: int, model: str, arch: str | None, source: str
) -> dict[str, Any]:
    """All layers measured, and the result written as JSON, Markdown and a picture."""
    from slimcv.report.heatmap import heat_map
    from slimcv.report.sensitivity import build, render_sensitivity
    from slimcv.sensitivity.analysis import analyse
    from slimcv.writing import write_text

    if not run.resumed:
        for name in FILES:
            (run.folder / name).unlink(missing_ok=True)
    document = build(
        list(analyse(context, run, images=images)),
        model={"name": Path(model).name, "source": model, "arch": arch, "input": str(context.teacher.input)},
        data={"source": source, "fingerprint": context.data.fingerprint if context.data else None},
        threads=context.threads,
        seed=context.seed,
        command=typed.command(),
    )
    texts = (
        render_sensitivity(document, "json"),
        render_sensitivity(document, "markdown"),
        heat_map(document),
    )
    for name, text in zip(FILES, texts, strict=True):
        write_text(run.folder / name, text)
    run.finish()
    return document
