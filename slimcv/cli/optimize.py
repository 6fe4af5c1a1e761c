"""`slimcv optimize`: a recipe applied to a model, step by step."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterable, Iterator
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from slimcv import optimization
from slimcv.cli import completion, pipeline, together, typed
from slimcv.cli.board import Board
from slimcv.cli.intake import caching, load_model, log_to_stderr, seconds_of
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
    JunitOption,
    MeanOption,
    ModelArgument,
    NoCacheOption,
    SeedOption,
    StdOption,
    ThreadsOption,
    TrackOption,
)
from slimcv.optimization import Named

if TYPE_CHECKING:
    from slimcv.results import Record

EXIT_GATE_MISSED = 3


class InputFormat(StrEnum):
    """What exported files are fed."""

    PIXELS = "uint8-nhwc"
    PLANES = "float-nchw"


def optimize(
    model: ModelArgument,
    recipe: Annotated[
        str,
        typer.Option(
            help="A shipped recipe's name, or a path to a YAML file.", autocompletion=completion.recipes
        ),
    ] = "cpu_fast",
    data: DataOption = None,
    out: Annotated[Path | None, typer.Option(help="Where the result goes. Default: <model>-slim/.")] = None,
    arch: ArchOption = None,
    code: CodeOption = None,
    input_shape: InputOption = None,
    mean: MeanOption = None,
    std: StdOption = None,
    max_drop: Annotated[
        float | None, typer.Option(help="Top-1 points that may be lost; overrides the recipe.")
    ] = None,
    min_speedup: Annotated[
        float | None, typer.Option(help="Least speed-up over the original in eager PyTorch.")
    ] = None,
    strict: Annotated[
        bool,
        typer.Option("--strict", help="A gate that the pictures and calls do not decide counts as missed."),
    ] = False,
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", help="step.key=value, over the recipe's.", autocompletion=completion.overrides),
    ] = None,
    threads: ThreadsOption = None,
    seed: SeedOption = 0,
    budget: Annotated[
        str | None,
        typer.Option(
            help="Start no training after this time, such as 15m; an interrupted run goes on counting."
        ),
    ] = None,
    memory: Annotated[
        str | None, typer.Option(help="Most memory that training may take, such as 4GB.")
    ] = None,
    checkpoint_every: Annotated[
        str | None, typer.Option(help="Most training that a killed run may lose. Default: 60s.")
    ] = None,
    cache: CacheOption = None,
    cache_limit: CacheLimitOption = None,
    no_cache: NoCacheOption = False,
    runtime: Annotated[
        str | None,
        typer.Option(
            help="Optimise for one runtime, such as openvino, or one form of it, such as openvino:nncf or "
            "inductor:bf16, alone. Default: whatever is fastest is served.",
            autocompletion=completion.forced,
        ),
    ] = None,
    quick: Annotated[
        bool,
        typer.Option("--quick", help="End with a short measurement, of the recipe's own exports alone."),
    ] = False,
    target_isa: Annotated[
        str | None,
        typer.Option(
            help="Of the CPU that serves: avx2, avx512, avx512_vnni, avx512_bf16 or amx. Default: this one.",
            autocompletion=completion.target_isas,
        ),
    ] = None,
    input_format: Annotated[
        InputFormat | None,
        typer.Option(help="What exported files are fed; overrides the recipe, which says uint8-nhwc."),
    ] = None,
    keep: Annotated[
        str | None,
        typer.Option(
            help="What stays beside the served file: onnx, openvino, pt2, checkpoints. Default: all but the "
            "checkpoints.",
            autocompletion=completion.kept,
        ),
    ] = None,
    zip_too: Annotated[bool, typer.Option("--zip", help="Write the folder as one .zip file too.")] = False,
    license: Annotated[
        str | None, typer.Option(help="Licence of MODEL, such as apache-2.0, for the model card.")
    ] = None,
    junit: JunitOption = None,
    track: TrackOption = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the resolved plan and exit.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Discard the run that --out holds.")] = False,
    output_format: FormatOption = Format.TEXT,
) -> None:
    """Apply a recipe to MODEL, keep what measurement proves, write a folder that can be deployed.

    Started by torchrun or accelerate launch, several processes train together, on one machine or more.

    Exit codes: 0 done and gate met, 2 bad input, 3 finished but the gate was not met, 130 interrupted.
    """
    with together.joined(alone=dry_run) as group:
        kept = caching(cache, cache_limit, none=no_cache)
        if group is not None and group.rank:
            together.follow(group, data, kept)
            return

        from slimcv.report.junit import errors_told, of_report, write_junit

        suite = f"slimcv optimize {model}"
        with errors_told(junit, suite):
            from slimcv import sidecar, tracking
            from slimcv.recipe.asked import asked

            tracker = tracking.find(track)
            plan = asked(
                recipe,
                overrides=overrides or (),
                max_drop=max_drop,
                min_speedup=min_speedup,
                strict=strict,
                runtime=runtime,
                input_format=input_format and input_format.value,
                target_isa=target_isa,
                memory=memory,
                checkpoint_every=checkpoint_every,
            )
            if dry_run:
                from slimcv.report.terminal import wrapped

                print("\n".join(wrapped(line, indent=3) for line in plan.plan()))
                return
            kept_files, checkpoints = _kept(keep)
            beside = sidecar.find(model)
            seconds = None if budget is None else seconds_of("--budget", budget)
            log_to_stderr()

            from slimcv import bundle
            from slimcv.measure import allocator

            allocator.tune_or_tell()
            variant = load_model(
                model, arch=arch, code=code, shape=input_shape, mean=mean, std=std, beside=beside
            )
            sha256 = bundle.sha256(Path(model)) if Path(model).is_file() else None
            folder = out or optimization.default_folder(model, "slim")
            pictures = data or beside.folder()
            trains = any(entry.trains for entry in plan.entries)
            classes = variant.classes or beside.classes
            together.begin(group, variant, pictures if trains else None, classes=classes, seed=seed)
            context = optimization.make_context(
                variant, pictures, folder, threads=threads, seed=seed, kept=kept, classes=beside.classes
            )
            context = together.lead(group, context, trains=trains)
            command = typed.command()
            named = Named(model, sha256=sha256, arch=arch, data=pictures, command=command, license=license)
            with optimization.open_run(folder, plan, context, overwrite=overwrite, quick=quick) as run:
                with pipeline.watched(plan, logging.getLogger("slimcv"), sys.stderr) as board:
                    coming = optimization.records(plan, run, context, seconds=seconds, quick=quick)
                    found = list(_shown(coming, board))
                document = optimization.finish(
                    found,
                    plan,
                    run,
                    context,
                    named=named,
                    keep=kept_files,
                    keep_checkpoints=checkpoints,
                )

    from slimcv import report

    print(report.render(document, output_format.value, colour=report.wants_colour(sys.stdout)), end="")
    say(f"written to {folder}/")
    write_junit(junit, suite, of_report(document))
    if zip_too:
        say(f"and to {bundle.archive(folder.resolve())}")
    if tracker is not None:
        tracking.track(tracker, tracking.of_run(folder))
    if not document["gate"]["met"]:
        raise typer.Exit(EXIT_GATE_MISSED)


def _shown(records: Iterable[Record], board: Board) -> Iterator[Record]:
    """The records as they come, each as a line of a table on stderr."""
    from slimcv import report

    colour = report.wants_colour(sys.stderr)
    say(report.step_header())
    for record in records:
        board.decide(record)
        say(report.step_line(record, colour=colour))
        yield record


def _kept(keep: str | None) -> tuple[list[str] | None, bool]:
    """The runtimes whose files `--keep` names, None for all, and whether checkpoints stay.

    Raises SlimcvError.
    """
    if keep is None:
        return None, False
    return optimization.kept([word.strip() for word in keep.split(",") if word.strip()])
