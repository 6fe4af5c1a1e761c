"""One optimisation from a loaded model to a finished folder: what command line and Python both do."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from slimcv import __version__

if TYPE_CHECKING:
    from slimcv.packed import Compared
    from slimcv.recipe import Recipe
    from slimcv.results import Record
    from slimcv.run import Run
    from slimcv.step import Context, Variant

CHECKPOINTS = "checkpoints"
"""The word by which checkpoints are kept beside files of runtimes."""


@dataclass(frozen=True)
class Caching:
    """Where decoded pictures are kept, at most how many bytes of them, and whether after this run."""

    folder: Path | None = None
    limit: int | None = None
    keep: bool = True


@dataclass(frozen=True)
class Named:
    """What the user called things, for the report: the model, its file's hash, architecture, pictures.

    `command` is the command line, empty where there was none; `license` that of the model.
    """

    model: str
    sha256: str | None = None
    arch: str | None = None
    data: str | None = None
    command: Sequence[str] = ()
    license: str | None = None


def default_folder(model: str, ending: str) -> Path:
    """Where results go unless somebody says: beside the model's file, in the working directory for a name.

    models/net.pt → models/net-slim, timm:resnet50.a1_in1k?features=1 → timm-resnet50.a1_in1k-features-1-slim.
    """
    path = Path(model)
    if not path.exists():
        return Path(f"{re.sub(r'[:?&=]', '-', model)}-{ending}")
    return path.with_name(f"{path.stem}-{ending}")


def make_context(
    variant: Variant,
    data: str | None,
    folder: Path,
    *,
    threads: int | None,
    seed: int,
    kept: Caching,
    classes: tuple[str, ...] | None,
) -> Context:
    """The model as teacher with its pictures, read and checked against its outputs. Raises SlimcvError."""
    import torch

    from slimcv import data as pictures
    from slimcv.measure.threads import available
    from slimcv.step import Context

    torch.set_num_threads(available())
    dataset = None
    if data is not None:
        dataset = pictures.load(
            data,
            seed=seed,
            classes=variant.classes or classes,
            input=variant.input,
            cache=kept.folder,
            cache_limit=kept.limit,
            keep=kept.keep,
        )
        with torch.no_grad():
            outputs = variant.model(torch.zeros(2, *variant.input.shape)).shape[1]
        dataset.check_outputs(outputs)
        logging.getLogger("slimcv").info(
            "pictures become %s, normalised with mean %s and std %s",
            variant.input,
            ", ".join(f"{value:g}" for value in variant.input.mean),
            ", ".join(f"{value:g}" for value in variant.input.std),
        )
        variant = replace(variant, classes=dataset.classes)
    return Context(
        teacher=variant,
        data=dataset,
        workdir=folder / "work",
        threads=threads or available(),
        train_threads=available(),
        seed=seed,
    )


def open_run(folder: Path, plan: Recipe, context: Context, *, overwrite: bool, quick: bool = False) -> Run:
    """The run directory of this very optimisation, new or gone on with; `quick` is that of `records`.

    Raises SlimcvError where the folder holds another run, among them one that was measured otherwise, the
    only runtime that may serve is not here, or the gate asks for what nothing can show without pictures.
    """
    if plan.runtime is not None:
        _require(plan.runtime)
    _require_pictures(plan, context)
    own = {"recipe": plan.plan(), "measurement": "quick" if quick else "full"}
    return open_folder(folder, context, "run", own=own, overwrite=overwrite)


def _require(name: str) -> None:
    """Raise SlimcvError where a runtime, or the one of a form, lacks its library or its compiler."""
    from slimcv import runtimes
    from slimcv.bakeoff import runtime_of
    from slimcv.runtimes import inductor

    runtime = runtime_of(name)
    runtimes.import_library(runtime)
    if runtime in (*runtimes.COMPILED, runtimes.NATIVE):
        inductor.require_compiler()


def _require_pictures(plan: Recipe, context: Context) -> None:
    """Raise SlimcvError where the gate asks how sure its accuracy is, and no pictures show it."""
    from slimcv.errors import SlimcvError

    if plan.gate.confidence is not None and plan.gate.max_drop is not None and context.data is None:
        raise SlimcvError(
            "the gate asks how sure it is that top-1 is kept, and there are no pictures",
            "give labelled ones with --data DIR",
        )


def open_folder(folder: Path, context: Context, what: str, *, own: dict[str, Any], overwrite: bool) -> Run:
    """The directory of a `what` that depends on `context` and on what is its `own`. Raises SlimcvError."""
    from slimcv.run import Run
    from slimcv.train.teacher import fingerprint

    identity = {
        "model": fingerprint(context.teacher.model),
        "input": repr(context.teacher.input),
        **own,
        "data": context.data.fingerprint if context.data else None,
        "seed": context.seed,
        "threads": context.threads,
        "slimcv": __version__,
    }
    run = Run.open(folder, identity=identity, overwrite=overwrite)
    if run.resumed:
        logging.getLogger("slimcv").info("going on with the %s in %s", what, folder)
    return run


def records(
    plan: Recipe, run: Run, context: Context, *, seconds: float | None, quick: bool = False
) -> Iterator[Record]:
    """The session's records as decisions fall; after `seconds` of this run no training is started.

    `quick` is that of `slimcv.session.optimize`.
    """
    import time

    from slimcv import session

    deadline = None if seconds is None else time.perf_counter() + seconds - run.seconds
    context = replace(context, workdir=run.workdir, deadline=deadline)
    _warn_of_few_pictures(plan, context)
    yield from session.optimize(plan, context, run, quick=quick)


def _warn_of_few_pictures(plan: Recipe, context: Context) -> None:
    """Before the work starts: a gate that asks for confidence may be out of reach of so few pictures."""
    from slimcv.gate import pictures_to_show

    needed = pictures_to_show(plan.gate)
    pictures = len(context.data.val) if context.data else 0
    if needed is not None and pictures < needed:
        logging.getLogger("slimcv").warning(
            "the gate asks for %g %% confidence that top-1 drops by at most %g points: with %d pictures in "
            "val/ only a variant better than the original can show that, with %d one that answers as it does",
            100 * (plan.gate.confidence or 0),
            plan.gate.max_drop,
            pictures,
            needed,
        )


def kept(words: Sequence[str]) -> tuple[list[str], bool]:
    """What words such as "onnx" and "checkpoints" stand for: runtimes, and whether checkpoints stay.

    Raises SlimcvError for a word that is neither.
    """
    from slimcv.errors import SlimcvError, nearest
    from slimcv.serving.layouts import FILES

    for word in words:
        if word not in (*FILES, CHECKPOINTS):
            raise SlimcvError(
                f"keep {','.join(words)}: there is no file '{word}'", nearest(word, (*FILES, CHECKPOINTS))
            )
    return [FILES[word] for word in words if word in FILES], CHECKPOINTS in words


def finish(
    found: Sequence[Record],
    plan: Recipe,
    run: Run,
    context: Context,
    *,
    named: Named,
    keep: Sequence[str] | None = None,
    keep_checkpoints: bool = False,
) -> dict[str, Any]:
    """Write the bundle that the session's records describe, and close the run; the report.

    `keep` names the runtimes whose files stay beside the served one, by default all that are there: those an
    earlier call left away stay away. The checkpoints of the steps go, unless they are to be kept: a finished
    run reads them no more.
    """
    from slimcv import bundle, runtimes
    from slimcv.predictions import PREDICTIONS
    from slimcv.report.outcome import from_records
    from slimcv.serving import golden
    from slimcv.step import InputSpec
    from slimcv.writing import writable

    sizes = _packing(plan, run, named)
    bundle.reopen(run.folder)
    found = [*found[:-1], _with_artifacts(found[-1], run.folder, runtimes.NAMES if keep is None else keep)]
    document = from_records(
        found,
        recipe=plan,
        context=context,
        model=named.model,
        sha256=named.sha256,
        arch=named.arch,
        data=named.data,
        command=named.command,
        packing=sizes,
    )
    shipped = found[-1].details
    details = {"input_format": shipped["input_format"]}
    served = replace(context.teacher, input=InputSpec(**shipped["input"]), details=details)
    # Compiled code answers as eager PyTorch does, and is not worth compiling for sixteen pictures.
    runtime = "eager" if shipped["serve"] in runtimes.COMPILED else shipped["serve"]
    samples = golden.made(
        run.folder / bundle.PLACES[runtime],
        runtime,
        served.input,
        split=context.data.val if context.data else None,
        threads=context.threads,
        seed=context.seed,
        exact=shipped.get("computed_exactly", False),
    )
    with writable(run.folder):
        _keep_predictions(run, context)
        _write_page(run.folder, document)
    bundle.write(
        run.folder,
        document,
        served,
        serve=shipped["serve"],
        seed=context.seed,
        golden=samples,
        moved_by_rounding=shipped.get("moved_by_rounding", 0.0),
        license=named.license,
        beside=(PREDICTIONS, bundle.PAGE),
    )
    run.finish(keep_checkpoints=keep_checkpoints)
    return document


def _packing(plan: Recipe, run: Run, named: Named) -> Compared | Mapping[str, Any] | str:
    """What packing comes to, or why it was left out; of a run finished again what it said before.

    Only a recipe for size takes longer than a few seconds for that.
    """
    from slimcv import bundle, packed
    from slimcv.shipping.contenders import original_file

    given = original_file(run) if named.sha256 is None else Path(named.model)
    onnx = run.folder / bundle.PLACES["onnxruntime"]
    if given.exists() and onnx.is_file():
        return packed.compared(onnx, original=given, short=plan.objective != "size")
    try:
        found = json.loads((run.folder / "report.json").read_text("utf-8"))
    except (OSError, ValueError):
        found = {}
    if found.get("packing"):
        return dict(found["packing"])
    return str(found.get("not_packed") or f"there is no {(onnx if given.exists() else given).name}")


def _keep_predictions(run: Run, context: Context) -> None:
    """What both networks say to the pictures of val/; a run that is finished again has them already."""
    from slimcv import predictions, shipping

    before, after = run.recall(shipping.ORIGINAL_ANSWERS), run.recall(shipping.SHIPPED_ANSWERS)
    if context.data is None or before is None or after is None:
        return
    predictions.write(
        run.folder,
        context.data.val,
        input=context.teacher.input,
        classes=context.data.classes,
        original=before["predictions"],
        optimized=after["predictions"],
    )


def _write_page(folder: Path, document: dict[str, Any]) -> None:
    """report.html, which `slimcv report` writes again from what lies in the folder."""
    from slimcv import predictions
    from slimcv.bundle import PAGE
    from slimcv.report.html import render_html
    from slimcv.report.reading import of
    from slimcv.writing import write_text

    found = of(document, folder, said=predictions.read(folder))
    write_text(folder / PAGE, render_html([found]))


def _with_artifacts(shipped: Record, folder: Path, keep: Sequence[str]) -> Record:
    """The last record without the files that are not kept, which are removed, or were by an earlier call."""
    from slimcv import bundle
    from slimcv.results import Artifact

    details = shipped.details
    artifacts = [Artifact(**values) for values in details["artifacts"]]
    present = [artifact for artifact in artifacts if (folder / artifact.path).is_file()]
    if len(present) < len(artifacts):
        gone = ", ".join(artifact.path for artifact in artifacts if artifact not in present)
        logging.getLogger("slimcv").warning("%s: not there any more, --overwrite makes the folder anew", gone)
    kept = bundle.keep_only(folder, present, keep, serve=details["serve"])
    return replace(shipped, details={**details, "artifacts": [asdict(artifact) for artifact in kept]})
