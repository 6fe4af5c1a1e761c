"""The command line: parse, call, print. Nothing else in slimcv prints or exits."""

from __future__ import annotations

import errno
import logging
import os
import signal
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from slimcv import __version__
from slimcv.errors import SlimcvError

if TYPE_CHECKING:
    from slimcv.recipe import Recipe
    from slimcv.run import Run
    from slimcv.step import Context, Variant

EXIT_BAD_INPUT, EXIT_GATE_MISSED, EXIT_INTERRUPTED = 2, 3, 130
_INTERRUPTED = "interrupted: the same command goes on from the last finished step"

app = typer.Typer(
    name="slimcv",
    help="Make a trained PyTorch vision model small and fast on a CPU, with proof.",
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)
recipes_app = typer.Typer(help="List the shipped recipes, show one, list the steps.", rich_markup_mode=None)
app.add_typer(recipes_app, name="recipes")


class Format(StrEnum):
    """How a result is printed."""

    TEXT = "text"
    JSON = "json"
    MARKDOWN = "markdown"


ModelArgument = Annotated[
    str,
    typer.Argument(
        metavar="MODEL", help="A .pt, .pth, .pt2 or .safetensors file, timm:NAME or torchvision:NAME."
    ),
]
ArchOption = Annotated[
    str | None,
    typer.Option(
        help="Architecture of a state dict: timm:NAME, torchvision:NAME, "
        "net.py:factory?classes=12, pkg:factory."
    ),
]
CodeOption = Annotated[
    list[str] | None,
    typer.Option(help="Python file or module whose classes the model file may use (it is imported)."),
]
MeanOption = Annotated[
    str | None, typer.Option(help="Normalisation mean a channel, such as 0.5,0.5,0.5 (of pixels / 255).")
]
StdOption = Annotated[str | None, typer.Option(help="Normalisation deviation a channel.")]
ThreadsOption = Annotated[
    int | None, typer.Option(min=1, help="Threads a prediction may use. Default: what the container allows.")
]
FormatOption = Annotated[Format, typer.Option("--format", help="How to print the result.")]


def main() -> NoReturn:
    """Entry point of the `slimcv` command."""
    # OpenMP's threads wait for each other at the end of every layer. Spinning there, training is five times
    # slower while a neighbour holds a core; sleeping costs nothing on an idle machine. Torch reads it once.
    os.environ.setdefault("GOMP_SPINCOUNT", "0")
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        app()
    except SlimcvError as error:
        print(f"error: {error.message}", file=sys.stderr)
        print(f"hint: {error.hint}", file=sys.stderr)
        sys.exit(error.exit_code)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        print(f"error: {error.filename or 'the disk'}: {error.strerror}", file=sys.stderr)
        print("hint: free some space; the same command goes on where the run stopped", file=sys.stderr)
        sys.exit(EXIT_BAD_INPUT)
    except KeyboardInterrupt:
        print(_INTERRUPTED, file=sys.stderr)
        sys.exit(EXIT_INTERRUPTED)
    except SystemExit as end:
        # Inside a command it is Typer that catches Ctrl-C: it ends with 130 and says nothing.
        if end.code == EXIT_INTERRUPTED:
            print(_INTERRUPTED, file=sys.stderr)
        raise
    sys.exit(0)


@app.callback(invoke_without_command=True)
def _root(
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> None:
    if version:
        print(f"slimcv {__version__}")
        raise typer.Exit


@app.command()
def optimize(
    model: ModelArgument,
    recipe: Annotated[
        str, typer.Option(help="A shipped recipe's name, or a path to a YAML file.")
    ] = "cpu_fast",
    data: Annotated[
        str | None,
        typer.Option(help="Folder of class folders (or of train/ and val/), or package.module:factory."),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Where the result goes. Default: <model>-slim/.")] = None,
    arch: ArchOption = None,
    code: CodeOption = None,
    input_shape: Annotated[
        str | None, typer.Option("--input", help="Input shape, such as 3x224x224.")
    ] = None,
    mean: MeanOption = None,
    std: StdOption = None,
    max_drop: Annotated[
        float | None, typer.Option(help="Top-1 points that may be lost; overrides the recipe.")
    ] = None,
    min_speedup: Annotated[
        float | None, typer.Option(help="Least speed-up over the original in eager PyTorch.")
    ] = None,
    overrides: Annotated[
        list[str] | None, typer.Option("--set", help="step.key=value, over the recipe's.")
    ] = None,
    threads: ThreadsOption = None,
    seed: Annotated[int, typer.Option(help="Seed of the data split and of everything random.")] = 0,
    budget: Annotated[
        str | None, typer.Option(help="Start no training after this time, such as 15m.")
    ] = None,
    cache: Annotated[
        Path | None, typer.Option(help="Where decoded pictures are kept. Default: ~/.cache/slimcv.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the resolved plan and exit.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Discard the run that --out holds.")] = False,
    output_format: FormatOption = Format.TEXT,
) -> None:
    """Apply a recipe to MODEL, keep what measurement proves, write a folder that can be deployed.

    Exit codes: 0 done and gate met, 2 bad input, 3 finished but the gate was not met, 130 interrupted.
    """
    from slimcv import sidecar
    from slimcv.recipe import load as load_recipe

    plan = load_recipe(recipe, overrides=(*(overrides or ()), *_gate_overrides(max_drop, min_speedup)))
    if dry_run:
        print("\n".join(plan.plan()))
        return
    beside = sidecar.find(model)
    seconds = None if budget is None else _seconds(budget)
    _log_to_stderr()

    from slimcv.measure import allocator

    allocator.tune()
    variant = _load_model(model, arch=arch, code=code, shape=input_shape, mean=mean, std=std, beside=beside)
    folder = out or Path(f"{Path(model.replace(':', '-')).with_suffix('')}-slim")
    context = _context(
        variant, data or beside.data, folder, threads=threads, seed=seed, cache=cache, classes=beside.classes
    )
    run = _open_run(folder, plan, context, overwrite=overwrite)
    document = _run_recipe(
        plan, run, context, model=model, arch=arch, data=data or beside.data, seconds=seconds
    )

    from slimcv import report

    print(report.render(document, output_format.value, colour=report.wants_colour(sys.stdout)), end="")
    print(f"written to {folder}/", file=sys.stderr)
    if not document["gate"]["met"]:
        raise typer.Exit(EXIT_GATE_MISSED)


@app.command()
def profile(
    model: ModelArgument,
    arch: ArchOption = None,
    code: CodeOption = None,
    input_shape: Annotated[
        str | None, typer.Option("--input", help="Input shape, such as 3x224x224.")
    ] = None,
    threads: ThreadsOption = None,
    output_format: FormatOption = Format.TEXT,
) -> None:
    """Say where MODEL's time and memory go, layer by layer, and which recipe step addresses it."""
    from slimcv import sidecar

    beside = sidecar.find(model)
    _log_to_stderr()

    from slimcv import profile as profiling
    from slimcv import report
    from slimcv.measure.threads import available

    variant = _load_model(model, arch=arch, code=code, shape=input_shape, mean=None, std=None, beside=beside)
    found = profiling.profile(variant, threads=threads or available(), name=model)
    print(
        report.render_profile(found.as_json(), output_format.value, colour=report.wants_colour(sys.stdout)),
        end="",
    )


@recipes_app.callback(invoke_without_command=True)
def _recipes(context: typer.Context) -> None:
    """List the shipped recipes."""
    if context.invoked_subcommand is not None:
        return
    from slimcv import recipe

    for name in recipe.names():
        print(f"{name:14} {' '.join(recipe.load(name).description.split())}")


@recipes_app.command("show")
def _show(name: Annotated[str, typer.Argument(help="A shipped recipe's name, or a path.")]) -> None:
    """Print a recipe's text."""
    from slimcv import recipe

    print(recipe.load(name).text, end="")


@recipes_app.command("steps")
def _steps() -> None:
    """List the steps a recipe may use, with their parameters and defaults."""
    from slimcv import recipe

    for name in recipe.step_names():
        kind = recipe.step_class(name)
        print(f"{name} ({kind.stage.name.lower()}): {recipe.step_summary(name)}")
        for key, field in kind.model_fields.items():
            default = field.get_default(call_default_factory=True)
            print(f"    {key} = {default!r}  {field.description or ''}".rstrip())


def _gate_overrides(max_drop: float | None, min_speedup: float | None) -> list[str]:
    given = {"max_drop": max_drop, "min_speedup": min_speedup}
    return [f"gate.{key}={value}" for key, value in given.items() if value is not None]


def _seconds(text: str) -> float:
    from slimcv.train.settings import seconds

    try:
        return seconds(text)
    except ValueError as error:
        raise SlimcvError(f"--budget {text}: {error}", "for example 90s, 10m or 1h30m") from error


def _numbers(option: str, text: str | None) -> tuple[float, ...] | None:
    if text is None:
        return None
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError as error:
        raise SlimcvError(
            f"{option} {text}: not numbers separated by commas", "for example 0.5,0.5,0.5"
        ) from error


def _load_model(
    model: str,
    *,
    arch: str | None,
    code: list[str] | None,
    shape: str | None,
    mean: str | None,
    std: str | None,
    beside: Any,
) -> Variant:
    from slimcv import models

    return models.load(
        model,
        arch=arch,
        code=tuple(code or ()),
        input=shape or beside.input,
        classes=beside.classes,
        mean=_numbers("--mean", mean) or beside.mean,
        std=_numbers("--std", std) or beside.std,
    )


def _context(
    variant: Variant,
    data: str | None,
    folder: Path,
    *,
    threads: int | None,
    seed: int,
    cache: Path | None,
    classes: tuple[str, ...] | None,
) -> Context:
    from dataclasses import replace

    import torch

    from slimcv import data as pictures
    from slimcv.measure.threads import available
    from slimcv.step import Context

    torch.set_num_threads(available())
    dataset = None
    if data is not None:
        dataset = pictures.load(data, seed=seed, classes=variant.classes or classes, cache=cache)
        with torch.no_grad():
            outputs = variant.model(torch.zeros(2, *variant.input.shape)).shape[1]
        dataset.check_outputs(outputs)
        variant = replace(variant, classes=dataset.classes)
    return Context(
        teacher=variant,
        data=dataset,
        workdir=folder / "work",
        threads=threads or available(),
        train_threads=available(),
        seed=seed,
    )


def _open_run(folder: Path, plan: Recipe, context: Context, *, overwrite: bool) -> Run:
    from slimcv.run import Run
    from slimcv.train.teacher import fingerprint

    identity = {
        "model": fingerprint(context.teacher.model),
        "input": repr(context.teacher.input),
        "recipe": plan.plan(),
        "data": context.data.fingerprint if context.data else None,
        "seed": context.seed,
        "threads": context.threads,
        "slimcv": __version__,
    }
    run = Run.open(folder, identity=identity, overwrite=overwrite)
    if run.resumed:
        logging.getLogger("slimcv").info("going on with the run in %s", folder)
    return run


def _run_recipe(
    plan: Recipe,
    run: Run,
    context: Context,
    *,
    model: str,
    arch: str | None,
    data: str | None,
    seconds: float | None,
) -> dict[str, Any]:
    import time
    from dataclasses import replace

    from slimcv import bundle, report, session
    from slimcv.report.outcome import from_records
    from slimcv.step import InputSpec

    deadline = None if seconds is None else time.perf_counter() + seconds
    colour = report.wants_colour(sys.stderr)
    print(report.step_header(), file=sys.stderr)
    records = []
    for record in session.optimize(plan, replace(context, workdir=run.workdir, deadline=deadline), run):
        records.append(record)
        print(report.step_line(record, colour=colour), file=sys.stderr, flush=True)
    document = from_records(
        records,
        recipe=plan,
        context=context,
        model=model,
        arch=arch,
        data=data,
        command=["slimcv", *sys.argv[1:]],
    )
    shipped = records[-1].details
    served = replace(context.teacher, input=InputSpec(**shipped["input"]))
    bundle.write(run.folder, document, served, serve=shipped["serve"], seed=context.seed)
    run.finish()
    return document


def _log_to_stderr() -> None:
    """Progress goes to stderr, one line at a time; what libraries have to say goes nowhere."""
    logger = logging.getLogger("slimcv")
    stream = logging.StreamHandler(sys.stderr)
    stream.setFormatter(logging.Formatter("  %(message)s"))
    logger.handlers = [stream]
    logger.setLevel(logging.INFO)
    logger.propagate = False
    logging.captureWarnings(True)
    warnings = logging.getLogger("py.warnings")
    warnings.handlers = [logging.NullHandler()]
    warnings.propagate = False


if __name__ == "__main__":
    main()
