"""`slimcv profile`: where time and memory go, and which step addresses it."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from slimcv.cli import completion, opening, typed
from slimcv.cli.intake import caching, load_model, log_to_stderr
from slimcv.cli.options import (
    ArchOption,
    CacheLimitOption,
    CacheOption,
    CodeOption,
    DataOption,
    Format,
    FormatOption,
    HtmlOption,
    InputOption,
    MeanOption,
    NoCacheOption,
    SeedOption,
    StdOption,
    ThreadsOption,
)
from slimcv.cli.page import write_html
from slimcv.errors import SlimcvError, nearest
from slimcv.optimization import make_context

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from slimcv.step import Variant
    from slimcv.train.settings import FinetuneSettings


_RUNTIMES = ("eager", "openvino", "onnxruntime", "inductor")


def profile(
    models: Annotated[
        list[str],
        typer.Argument(
            metavar="MODEL...",
            help="A .pt, .pth, .pt2 or .safetensors file, timm:NAME, torchvision:NAME or a bundle; "
            "two with --diff.",
        ),
    ],
    arch: ArchOption = None,
    code: CodeOption = None,
    input_shape: InputOption = None,
    mean: MeanOption = None,
    std: StdOption = None,
    threads: ThreadsOption = None,
    runtime: Annotated[
        str | None,
        typer.Option(
            help="Where layers are timed: eager, openvino, onnxruntime or inductor. Default: eager; with "
            "--diff what serves the bundle.",
            autocompletion=lambda incomplete: [name for name in _RUNTIMES if name.startswith(incomplete)],
        ),
    ] = None,
    diff: Annotated[
        bool, typer.Option("--diff", help="Two models or bundles, layer by layer against each other.")
    ] = False,
    roofline: Annotated[
        Path | None, typer.Option(help="Draw the layers under this machine's roofline into this SVG file.")
    ] = None,
    training: Annotated[
        bool, typer.Option("--training", help="Profile training steps on --data instead of predictions.")
    ] = False,
    data: DataOption = None,
    batch: Annotated[
        int | None, typer.Option(min=2, max=4096, help="Pictures a training step. Default: the recipe's.")
    ] = None,
    recipe: Annotated[
        str | None,
        typer.Option(
            help="Train as this recipe's longest training does. Default: no recipe.",
            autocompletion=completion.recipes,
        ),
    ] = None,
    overrides: Annotated[
        list[str] | None, typer.Option("--set", help="step.key=value, over the recipe's.")
    ] = None,
    seed: SeedOption = 0,
    cache: CacheOption = None,
    cache_limit: CacheLimitOption = None,
    no_cache: NoCacheOption = False,
    html: HtmlOption = None,
    output_format: FormatOption = Format.TEXT,
) -> None:
    """Say where MODEL's time and memory go, layer by layer, and which recipe step addresses it.

    With --training, say what a training step is made of instead, and what makes it slow.
    """
    from slimcv import sidecar

    _check_asked(models, runtime, diff=diff, training=training, roofline=roofline)
    model = models[0]
    given = {"--data": data, "--batch": batch, "--recipe": recipe, "--set": overrides}
    used = next((option for option, value in given.items() if value), None)
    if used is not None and not training:
        raise SlimcvError(f"{used} belongs to the profile of a training", "add --training")
    settings = _settings(recipe, tuple(overrides or ()), batch=batch) if training else None
    beside = sidecar.find(model)
    pictures = (data or beside.folder()) if training else None
    if training and pictures is None:
        raise SlimcvError("--training needs pictures", "give them with --data DIR")
    kept = caching(cache, cache_limit, none=no_cache)
    log_to_stderr()

    from slimcv import report
    from slimcv.measure.threads import available

    def load(file: str) -> Variant:
        return load_model(
            file, arch=arch, code=code, shape=input_shape, mean=mean, std=std, beside=sidecar.find(file)
        )

    colour = report.wants_colour(sys.stdout)
    if diff:
        from slimcv.report.difference import render_difference

        document = typed.repeatable(_difference(models, load, threads or available(), runtime))
        print(render_difference(document, output_format.value, colour=colour), end="")
        write_html(html, document, command="difference", about=models)
        return
    with opening.opened(model) as side:
        variant = load(side.file)
    if settings is None:
        from slimcv import profile as profiling

        found = profiling.profile(
            variant,
            threads=threads or available(),
            name=model,
            allocators=True,
            runtime=runtime or "eager",
        )
        document = typed.repeatable(found.as_json())
        print(report.render_profile(document, output_format.value, colour=colour), end="")
        write_html(html, document, command="profile", about=[model])
        if roofline is not None:
            _draw(document, roofline)
        return

    from slimcv.profile.training import profile_training
    from slimcv.report.profile_training import render_training

    context = make_context(
        variant, pictures, Path(), threads=threads, seed=seed, kept=kept, classes=beside.classes
    )
    context = replace(context, train_threads=threads or context.train_threads)
    trained = profile_training(variant, context, settings=settings, name=model)
    document = typed.repeatable(trained.as_json())
    print(render_training(document, output_format.value, colour=colour), end="")
    write_html(html, document, command="training", about=[model])


def _check_asked(
    models: list[str], runtime: str | None, *, diff: bool, training: bool, roofline: Path | None
) -> None:
    """Raises SlimcvError for what does not go together, before torch is paid for."""
    if len(models) != (2 if diff else 1):
        wanted = "two models or bundles" if diff else "one model"
        hint = "slimcv profile --diff A B" if diff else "compare two with --diff"
        raise SlimcvError(f"{wanted} wanted, {len(models)} given", hint)
    if runtime is not None and runtime not in _RUNTIMES:
        raise SlimcvError(f"layers are not timed in '{runtime}'", nearest(runtime, _RUNTIMES))
    given = {"--diff": diff, "--roofline": roofline, "--runtime": runtime not in (None, "eager")}
    other = next((option for option, value in given.items() if value), None)
    if training and other is not None:
        raise SlimcvError(f"{other} is not for a training", "leave --training away")
    if diff and roofline is not None:
        raise SlimcvError("--roofline is for one model", "leave --diff away")


def _difference(
    models: list[str], load: Callable[[str], Variant], threads: int, runtime: str | None
) -> dict[str, Any]:
    """Both layer by layer; each side's model says which file was profiled and what is served."""
    from slimcv import profile as profiling
    from slimcv.profile.difference import difference

    with ExitStack() as stack:
        sides = [stack.enter_context(opening.opened(model)) for model in models]
        profiles = [
            profiling.profile(load(side.file), threads=threads, name=model, runtime=counted, extras=False)
            for model, side, counted in zip(models, sides, opening.runtimes(runtime, sides), strict=True)
        ]
        first, second = (
            {**document, "model": {**document["model"], **side.as_json()}}
            for document, side in zip((one.as_json() for one in profiles), sides, strict=True)
        )
    return difference(first, second).as_json()


def _draw(profile: Mapping[str, Any], path: Path) -> None:
    from slimcv.report.roofline import roofline
    from slimcv.writing import write_text

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, roofline(profile))
    except OSError as error:
        raise SlimcvError(f"cannot write {path}: {error.strerror}", "give another --roofline") from error


def _settings(recipe: str | None, overrides: tuple[str, ...], *, batch: int | None) -> FinetuneSettings:
    """How a recipe trains longest, or the defaults where none is named. Raises SlimcvError."""
    from slimcv.recipe import load
    from slimcv.train.settings import FinetuneSettings

    settings = FinetuneSettings.model_validate({})
    if recipe is not None:
        plan = load(recipe, overrides=overrides)
        known = [entry.recover or entry.step for entry in plan.entries if entry.trains]
        trainings = [one for one in known if isinstance(one, FinetuneSettings)]
        if not trainings:
            raise SlimcvError(
                f"the recipe {plan.name} does not train", "leave --recipe away, or name another"
            )
        settings = max(trainings, key=lambda one: one.epochs)
    elif overrides:
        raise SlimcvError("--set changes a recipe and there is none", "name it with --recipe")
    return settings if batch is None else settings.model_copy(update={"batch": batch})
