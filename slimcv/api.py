"""The main job from Python: what `slimcv optimize` does, for pipelines."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from slimcv.errors import SlimcvError

if TYPE_CHECKING:
    from torch import nn

    from slimcv.serving import Predictor
    from slimcv.step import Variant


@dataclass(frozen=True)
class Result:
    """A finished optimisation: the folder that can be deployed, and its report as in `report.json`."""

    folder: Path
    report: dict[str, Any]

    @property
    def gate_met(self) -> bool:
        """Whether what is in the folder keeps the bounds that were asked for."""
        return bool(self.report["gate"]["met"])

    @property
    def gate_decided(self) -> bool | None:
        """Whether other pictures and calls would hardly turn `gate_met`; None where that is not known."""
        found: bool | None = self.report["gate"]["decided"]
        return found

    @property
    def speedup(self) -> float | None:
        """Median latency of the original in eager PyTorch over that of the optimised network."""
        found: float | None = self.report["ratios"].get("latency_p50")
        return found

    def load(self, **options: Any) -> Predictor:
        """The optimised network, ready to predict; `options` are those of `slimcv.load`."""
        from slimcv.serving import load

        return load(self.folder, **options)


def optimize(
    model: str | os.PathLike[str] | nn.Module,
    *,
    recipe: str = "cpu_fast",
    data: str | os.PathLike[str] | None = None,
    out: str | os.PathLike[str] | None = None,
    arch: str | None = None,
    code: tuple[str, ...] = (),
    input: str | None = None,
    mean: tuple[float, ...] | None = None,
    std: tuple[float, ...] | None = None,
    classes: tuple[str, ...] | None = None,
    max_drop: float | None = None,
    min_speedup: float | None = None,
    strict: bool = False,
    overrides: tuple[str, ...] = (),
    runtime: str | None = None,
    threads: int | None = None,
    seed: int = 0,
    budget: str | float | None = None,
    memory: str | None = None,
    checkpoint_every: str | None = None,
    cache: str | os.PathLike[str] | None = None,
    cache_limit: str | float | None = None,
    no_cache: bool = False,
    quick: bool = False,
    overwrite: bool = False,
    target_isa: str | None = None,
    input_format: str | None = None,
    keep: Sequence[str] | None = None,
    zip: bool = False,
    license: str | None = None,
    junit: str | os.PathLike[str] | None = None,
    track: str | None = None,
) -> Result:
    """Apply a recipe to a model, keep what measurement proves, write a folder that can be deployed.

    `model` is a file or a name as on the command line, or a network that takes float32 (n, channels, height,
    width) and gives logits (n, classes); it is left as it was. `input` is its shape, such as "3x224x224";
    `max_drop` (points of top-1) and `min_speedup` stand for the recipe's, and `strict` counts a gate as
    missed that pictures and calls do not decide; `overrides` are `step.key=value` and `gate.key=value`;
    `runtime` is the only one to optimise for, or a form such as "openvino:nncf". `budget` is seconds or text
    such as "15m", after which no training starts; `memory` the most that training may take, such as "4GB";
    `checkpoint_every` the most training that a killed run may lose, such as "60s". `cache` is the folder
    where decoded pictures are kept, `cache_limit` the most bytes of them, or text such as "20GB"; with
    `no_cache` none stay. `quick` ends with a short measurement of the recipe's exports alone; `target_isa` is
    that of the CPU that serves, such as "avx2"; `input_format` what exported files are fed, "uint8-nhwc" or
    "float-nchw"; `keep` what stays beside the served file, of "onnx", "openvino", "pt2" and "checkpoints";
    with `zip` the folder is written as `<folder>.zip` too. `out` is by default `<model>-slim`, and has to be
    given with a network. The same call goes on with a run that was interrupted. `junit` is an XML file to
    write each bound of the gate to, as a test, and what was raised. `track` logs the result to MLflow too,
    such as "mlflow:runs/". Progress is logged to the logger "slimcv". Raises SlimcvError for what the caller
    can mend.
    """
    from slimcv import bundle, optimization, sidecar, tracking
    from slimcv.measure import allocator
    from slimcv.optimization import Caching, Named
    from slimcv.recipe.asked import asked
    from slimcv.report.junit import errors_told, of_report, write_junit
    from slimcv.train.settings import seconds, size_bytes

    name = os.fspath(model) if isinstance(model, str | os.PathLike) else type(model).__name__
    suite, written = f"slimcv optimize {name}", None if junit is None else Path(junit)
    with errors_told(written, suite):
        tracker = tracking.find(track)
        plan = asked(
            recipe,
            overrides=overrides,
            max_drop=max_drop,
            min_speedup=min_speedup,
            strict=strict,
            runtime=runtime,
            input_format=input_format,
            target_isa=target_isa,
            memory=memory,
            checkpoint_every=checkpoint_every,
        )
        kept, checkpoints = (None, False) if keep is None else optimization.kept(keep)
        if out is None and not isinstance(model, str | os.PathLike):
            raise SlimcvError("a network has no name to call a folder by", "give out=, the folder to write")
        limit = _amount("budget", budget, seconds, "90s, 10m or 1h30m")
        most = _amount("cache_limit", cache_limit, size_bytes, "500MB or 20GB")
        pictures_kept = Caching(
            None if cache is None else Path(cache), None if most is None else round(most), keep=not no_cache
        )
        beside = sidecar.find(name)
        allocator.tune_or_tell()
        variant = _variant(
            model,
            arch=arch,
            code=code,
            input=input or beside.input,
            mean=mean or beside.mean,
            std=std or beside.std,
            classes=classes or beside.classes,
        )
        pictures = os.fspath(data) if data is not None else beside.folder()
        folder = Path(out) if out is not None else optimization.default_folder(name, "slim")
        context = optimization.make_context(
            variant,
            pictures,
            folder,
            threads=threads,
            seed=seed,
            kept=pictures_kept,
            classes=variant.classes,
        )
        sha256 = bundle.sha256(Path(name)) if Path(name).is_file() else None
        named = Named(name, sha256=sha256, arch=arch, data=pictures, license=license)
        with optimization.open_run(folder, plan, context, overwrite=overwrite, quick=quick) as run:
            found = list(optimization.records(plan, run, context, seconds=limit, quick=quick))
            report = optimization.finish(
                found, plan, run, context, named=named, keep=kept, keep_checkpoints=checkpoints
            )
        if zip:
            bundle.archive(folder.resolve())
    write_junit(written, suite, of_report(report))
    if tracker is not None:
        tracking.track(tracker, tracking.of_run(folder))
    return Result(folder, report)


def _amount(
    name: str, given: str | float | None, parsed: Callable[[str | float], float], example: str
) -> float | None:
    """Seconds or bytes of a number or a text. Raises SlimcvError."""
    try:
        return None if given is None else parsed(given)
    except ValueError as error:
        raise SlimcvError(f"{name} {given}: {error}", f"for example {example}") from error


def _variant(
    model: str | os.PathLike[str] | nn.Module,
    *,
    arch: str | None,
    code: tuple[str, ...],
    input: str | None,
    mean: tuple[float, ...] | None,
    std: tuple[float, ...] | None,
    classes: tuple[str, ...] | None,
) -> Variant:
    from slimcv import models

    if isinstance(model, str | os.PathLike):
        return models.load(
            os.fspath(model), arch=arch, code=code, input=input, classes=classes, mean=mean, std=std
        )
    return models.from_module(model, input=input, classes=classes, mean=mean, std=std)
