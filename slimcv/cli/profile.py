"""`slimcv profile`: where time and memory go, and which step addresses it."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

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
    ModelArgument,
    NoCacheOption,
    SeedOption,
    StdOption,
    ThreadsOption,
)
from slimcv.cli.page import write_html
from slimcv.errors import SlimcvError
from slimcv.optimization import make_context

if TYPE_CHECKING:
    from slimcv.train.settings import FinetuneSettings


def profile(
    model: ModelArgument,
    arch: ArchOption = None,
    code: CodeOption = None,
    input_shape: InputOption = None,
    mean: MeanOption = None,
    std: StdOption = None,
    threads: ThreadsOption = None,
    training: Annotated[
        bool, typer.Option("--training", help="Profile training steps on --data instead of predictions.")
    ] = False,
    data: DataOption = None,
    batch: Annotated[
        int | None, typer.Option(min=2, max=4096, help="Pictures a training step. Default: the recipe's.")
    ] = None,
    recipe: Annotated[
        str | None, typer.Option(help="Train as this recipe's longest training does. Default: no recipe.")
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

    variant = load_model(model, arch=arch, code=code, shape=input_shape, mean=mean, std=std, beside=beside)
    colour = report.wants_colour(sys.stdout)
    if settings is None:
        from slimcv import profile as profiling

        found = profiling.profile(variant, threads=threads or available(), name=model)
        write_html(html, found.as_json())
        print(report.render_profile(found.as_json(), output_format.value, colour=colour), end="")
        return

    from slimcv.profile.training import profile_training
    from slimcv.report.profile_training import render_training

    context = make_context(
        variant, pictures, Path(), threads=threads, seed=seed, kept=kept, classes=beside.classes
    )
    context = replace(context, train_threads=threads or context.train_threads)
    trained = profile_training(variant, context, settings=settings, name=model)
    write_html(html, trained.as_json())
    print(render_training(trained.as_json(), output_format.value, colour=colour), end="")


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
