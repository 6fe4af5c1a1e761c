"""`slimcv profile`: where time and memory go, and which step addresses it."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from slimcv.cli import completion
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
        str,
        typer.Option(
            help="Where layers are timed: eager, openvino, onnxruntime or inductor.",
            autocompletion=lambda incomplete: [name for name in _RUNTIMES if name.startswith(incomplete)],
        ),
    ] = "eager",
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

    _check_asked(
        models, runtime, diff=diff, training=training, pictures={"--roofline": roofline, "--html": html}
    )
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

    def load(name: str) -> Variant:
        file = _inside(name)
        return load_model(
            file, arch=arch, code=code, shape=input_shape, mean=mean, std=std, beside=sidecar.find(file)
        )

    colour = report.wants_colour(sys.stdout)
    if diff:
        print(_difference(models, load, threads or available(), runtime, output_format.value), end="")
        return
    variant = load(model)
    if settings is None:
        from slimcv import profile as profiling

        found = profiling.profile(
            variant, threads=threads or available(), name=model, allocators=True, runtime=runtime
        )
        write_html(html, found.as_json(), command="profile")
        if roofline is not None:
            _draw(found.as_json(), roofline)
        print(report.render_profile(found.as_json(), output_format.value, colour=colour), end="")
        return

    from slimcv.profile.training import profile_training
    from slimcv.report.profile_training import render_training

    context = make_context(
        variant, pictures, Path(), threads=threads, seed=seed, kept=kept, classes=beside.classes
    )
    context = replace(context, train_threads=threads or context.train_threads)
    trained = profile_training(variant, context, settings=settings, name=model)
    write_html(html, trained.as_json(), command="training")
    print(render_training(trained.as_json(), output_format.value, colour=colour), end="")


def _check_asked(
    models: list[str], runtime: str, *, diff: bool, training: bool, pictures: Mapping[str, Path | None]
) -> None:
    """Raises SlimcvError for what does not go together, before torch is paid for."""
    if len(models) != (2 if diff else 1):
        wanted = "two models or bundles" if diff else "one model"
        hint = "slimcv profile --diff A B" if diff else "compare two with --diff"
        raise SlimcvError(f"{wanted} wanted, {len(models)} given", hint)
    if runtime not in _RUNTIMES:
        raise SlimcvError(f"layers are not timed in '{runtime}'", nearest(runtime, _RUNTIMES))
    other = "--diff" if diff else "--roofline" if pictures["--roofline"] else None
    other = other or ("--runtime" if runtime != "eager" else None)
    if training and other is not None:
        raise SlimcvError(f"{other} is not for a training", "leave --training away")
    drawn = next((option for option, path in pictures.items() if path is not None), None)
    if diff and drawn is not None:
        raise SlimcvError(f"{drawn} is for one model", "leave --diff away")


def _inside(model: str) -> str:
    """The network of a bundle, or the model itself. Raises SlimcvError for a bundle without."""
    if not Path(model, "slimcv.json").is_file():
        return model
    if not Path(model, "model.pt2").is_file():
        raise SlimcvError(
            f"the bundle {model} has no model.pt2, whose layers have names", "optimise with --keep onnx,pt2"
        )
    return str(Path(model, "model.pt2"))


def _difference(
    models: list[str], load: Callable[[str], Variant], threads: int, runtime: str, output_format: str
) -> str:
    from slimcv import profile as profiling
    from slimcv import report
    from slimcv.profile.difference import difference
    from slimcv.report.difference import render_difference

    first, second = (
        profiling.profile(load(model), threads=threads, name=model, runtime=runtime, extras=False).as_json()
        for model in models
    )
    found = difference(first, second).as_json()
    return render_difference(found, output_format, colour=report.wants_colour(sys.stdout))


def _draw(profile: Mapping[str, Any], path: Path) -> None:
    from slimcv.report.roofline import roofline
    from slimcv.writing import write_text

    try:
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
