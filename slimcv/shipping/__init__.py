"""What is shipped: the final measurement of original against optimised variant, and the verdict on val/."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from slimcv import bakeoff, bundle, paired, runtimes
from slimcv.bakeoff import form_of, runtime_of
from slimcv.errors import SlimcvError
from slimcv.gate import Gate, Verdict, judge
from slimcv.measure import environment, latency, layers, size
from slimcv.measure.variant import Answers, answers, measurement
from slimcv.results import Artifact, Measurement, Record
from slimcv.rounding import rounded
from slimcv.train.pace import plain_seconds_per_epoch

if TYPE_CHECKING:
    from slimcv.run import Run
    from slimcv.step import Context, Variant

SHIP = "ship"
"""The name of the record that says what was shipped."""

ORIGINAL, DEFAULT_ALLOCATOR = "original", "original, default allocator"
ORIGINAL_ANSWERS, SHIPPED_ANSWERS = "original-answers", "shipped-answers"
"""What the run remembers of the answers on val/."""

UNMODIFIED = ("onnxruntime", "openvino")
"""Runtimes the original is tried in as is, so that what a runtime alone gives is not sold as compression."""

SAMPLES, QUICK_SAMPLES = 100, 20
"""Calls timed of each contender: a hundred are enough for a 99th percentile."""

THROUGHPUT_BATCH = 32

log = logging.getLogger("slimcv")


def ship(
    variant: Variant,
    *,
    number: int,
    context: Context,
    run: Run,
    gate: Gate,
    last_resort: bool,
    macs: tuple[int, int],
    bake_off: bool = True,
    quick: bool = False,
) -> Record:
    """Time the original, its best unmodified runtime and every artifact of `variant`; judge the fastest.

    The artifact is evaluated on val/ through the runtime that will serve it. Where that misses the gate's
    accuracy, the verdict falls before anything is timed, unless this is the `last_resort`: that variant is
    shipped even when it misses the gate, and `details["gate_met"]` says so. All are timed interleaved. With
    `bake_off` whatever else can run the variant here is tried beforehand (see slimcv.bakeoff); `quick` takes
    fewer calls. The record's `measurement` is the optimised variant's, `before` the original's; `details`
    hold what the report adds to them. `macs` are the original's and the variant's.
    """
    files = _files(variant, run, number)
    original_answers = _original_answers(context, run)
    original = measurement(
        context.teacher,
        runtime="eager",
        size_bytes=size.artifact_bytes(_original_file(run)),
        threads=context.threads,
        macs=macs[0],
        given=original_answers,
    )
    accuracy_gate = gate.model_copy(update={"min_speedup": None, "max_size": None})
    figures: dict[str, Measurement] = {}
    said: dict[str, Answers] = {}

    def evaluate(name: str) -> Measurement:
        if name not in figures:
            runtime = runtime_of(name)
            said[name] = _answers(files[name], runtime, variant, context)
            found = measurement(
                variant,
                runtime=runtime,
                size_bytes=size.artifact_bytes(files[name]),
                threads=context.threads,
                macs=macs[1],
                given=said[name],
                original=original_answers,
            )
            figures[name] = replace(found, int8_mac_share=None) if form_of(name) else found
        return figures[name]

    def accurate_forms() -> set[str]:
        """Files of one form answer alike, which was proved when they were made: one speaks for all."""
        spoken = {form_of(name): name for name in (*reversed(files), *figures, meant)}
        return {
            form
            for form, name in spoken.items()
            if judge(accuracy_gate, candidate=evaluate(name), original=original).accepted
        }

    meant = variant.runtime if variant.runtime in files else next(iter(files))
    if not (accurate_forms() or last_resort):
        accuracy = judge(accuracy_gate, candidate=evaluate(meant), original=original)
        missed = {"gate_met": False, "accuracy_met": False}
        return _record(number, original, evaluate(meant), verdict=accuracy, details=missed)
    heat = None
    if bake_off:
        folder = run.workdir / f"{number:03d}-bake-off"
        heat = bakeoff.heat(variant, files, context=context, folder=folder)
        files = heat.files
    unmodified = _unmodified(context, run)
    timings = _timings(context, run, variant, files=files, unmodified=unmodified, quick=quick)
    files = {name: path for name, path in files.items() if name in timings}
    refused = _refused(files, accurate_forms())
    allowed = [name for name in files if name not in refused] or list(files)
    best = min(allowed, key=lambda name: timings[name].latency.p50)
    optimized = _timed(evaluate(best), timings[best])
    run.remember(SHIPPED_ANSWERS, {"predictions": said[best].predictions.tolist()})
    shipped = _one_a_runtime(allowed, best)
    original = _timed(original, timings[ORIGINAL])
    if "finetune" in variant.details:
        original = replace(original, train_seconds_per_epoch=_original_pace(context, run))
    speed = latency.ratio(timings[ORIGINAL], timings[best], confidence=gate.confidence or paired.CONFIDENCE)
    verdict = judge(gate, candidate=optimized, original=original, speed=speed)
    accuracy = judge(accuracy_gate, candidate=optimized, original=original)
    table = [] if heat is None else bakeoff.rows(heat, timings, best=best, refused=refused)
    details = {
        "gate_met": verdict.accepted,
        "gate_decided": verdict.decided,
        "undecided": verdict.undecided,
        "pictures_needed": verdict.pictures_needed,
        "accuracy_met": accuracy.accepted,
        "serve": optimized.runtime,
        "quantizer": form_of(best) or None,
        "candidates": {name: timings[name].latency.p50 for name in files},
        "bake_off": [asdict(row) for row in table],
        "input": asdict(variant.input),
        "input_format": variant.details.get("input_format", runtimes.PLANES),
        "original_default_allocator": _retimed(
            original, timings.get(DEFAULT_ALLOCATOR, timings[ORIGINAL])
        ).as_json(),
        "environment": environment.describe().as_json(),
        "samples_ms": {name: [float(f"{ms:.5g}") for ms in timings[name].samples_ms] for name in timings},
        "intervals": _intervals(timings, unmodified, best),
        "layers": {
            key: [asdict(cost) for cost in layers.costs(each.model, each.input)]
            for key, each in (("original", context.teacher), ("optimized", variant))
        },
        "best_unmodified": _best_unmodified(original, unmodified, timings, run).as_json(),
        "artifacts": [
            asdict(part)
            for part in _placed(run, variant, {name: files[name] for name in shipped}, timings, number=number)
        ]
        if verdict.accepted or last_resort
        else [],
    }
    record = _record(number, original, optimized, verdict=verdict, details=details, last_resort=last_resort)
    return replace(record, reason="; ".join(filter(None, (record.reason, _race(files, timings, best)))))


def _refused(files: Iterable[str], accurate: Collection[str]) -> dict[str, str]:
    """Which candidates are not served whatever their speed, and why; machine code alone is what was asked."""
    refused = {}
    for name in files:
        if accurate and form_of(name) not in accurate:
            refused[name] = "its accuracy misses the gate"
        elif runtime_of(name) == runtimes.NATIVE and {*map(runtime_of, files)} != {runtimes.NATIVE}:
            refused[name] = "machine code, served only with --runtime aotinductor"
    return refused


def _race(files: dict[str, Path], timings: dict[str, latency.Timing], best: str) -> str:
    """Which of several files won, in words."""
    found = {name: timings[name].latency for name in files if name != best}
    others = [f"{name} {rounded(one.p50, one.spread * one.p50)} ms" for name, one in found.items()]
    return f"served is {best}, beside {', '.join(others)}" if others else ""


def _one_a_runtime(names: Sequence[str], best: str) -> list[str]:
    """What is shipped: the best one, and for every other runtime that of the variant's own graph."""
    return [best, *(name for name in names if not form_of(name) and name != runtime_of(best))]


def _record(
    number: int,
    original: Measurement,
    optimized: Measurement,
    *,
    verdict: Verdict,
    details: dict[str, Any],
    last_resort: bool = False,
) -> Record:
    return Record(
        number,
        -1,
        "ship",
        "accepted" if verdict.accepted or last_resort else "rejected",
        _reason(verdict, last_resort=last_resort),
        0.0,
        measurement=optimized,
        before=original,
        details=details,
    )


def _files(variant: Variant, run: Run, number: int) -> dict[str, Path]:
    """The artifacts to choose from, by runtime.

    A recipe without exports ships the checkpoint for eager PyTorch.
    """
    files = dict(variant.artifacts)
    if not files:
        files["eager"] = runtimes.write(variant, "eager", run.workdir / f"{number:03d}-ship")
    return files


def _original_file(run: Run) -> Path:
    return run.folder / "checkpoints" / "000-original.pt2"


def _unmodified(context: Context, run: Run) -> dict[str, Path]:
    """The original written for other runtimes, once a run; a runtime that does not take it is left out."""
    folder = run.workdir / "unmodified"
    files: dict[str, Path] = {}
    for runtime, suffix in zip(UNMODIFIED, (".onnx", ".xml"), strict=True):
        path = folder / f"model{suffix}"
        try:
            files[runtime] = (
                path
                if path.is_file()
                else runtimes.write(replace(context.teacher, artifacts=files), runtime, folder)
            )
        except SlimcvError as error:
            if error.disk_fault:
                raise
            log.info("the original cannot be written for %s: %s", runtime, error.message)
    return files


def _alone(runtime: str) -> str:
    return f"original in {runtime}"


def _timings(
    context: Context,
    run: Run,
    variant: Variant,
    *,
    files: dict[str, Path],
    unmodified: dict[str, Path],
    quick: bool,
) -> dict[str, latency.Timing]:
    threads, eager = context.threads, _original_file(run)
    spec = context.teacher.input
    contenders = {
        ORIGINAL: latency.Contender(eager, "eager", threads, spec),
        DEFAULT_ALLOCATOR: latency.Contender(eager, "eager", threads, spec, allocator="default"),
        **{_alone(name): latency.Contender(path, name, threads, spec) for name, path in unmodified.items()},
        **{
            name: latency.Contender(path, runtime_of(name), threads, variant.input)
            for name, path in files.items()
        },
    }
    while True:
        try:
            return latency.interleaved(
                contenders,
                samples=QUICK_SAMPLES if quick else SAMPLES,
                memory=True,
                throughput_batch=THROUGHPUT_BATCH,
            )
        except latency.ContenderFailed as error:
            del contenders[error.contender]
            if error.contender == ORIGINAL or not set(files) & set(contenders):
                raise
            log.warning("left out of the final measurement: %s", error.message)


def _original_answers(context: Context, run: Run) -> Answers:
    """The original's answers on val/ in eager PyTorch, kept with the run because they cost the most."""
    kept = run.recall(ORIGINAL_ANSWERS)
    if kept is None:
        found = _answers(_original_file(run), "eager", context.teacher, context)
        kept = {"predictions": found.predictions.tolist(), "top1": found.top1, "top5": found.top5}
        kept["right"] = None if found.right is None else found.right.tolist()
        run.remember(ORIGINAL_ANSWERS, kept)
    right = None if kept.get("right") is None else np.asarray(kept["right"], bool)
    return Answers(np.asarray(kept["predictions"]), kept["top1"], kept["top5"], right)


def _original_pace(context: Context, run: Run) -> float | None:
    """Seconds an epoch of training the original would take, measured once a run."""
    if context.data is None:
        return None
    kept = run.recall("original-pace")
    if kept is None:
        pictures = len(context.data.train)
        kept = {"seconds_per_epoch": plain_seconds_per_epoch(context.teacher, pictures)}
        run.remember("original-pace", kept)
    return float(kept["seconds_per_epoch"])


def _answers(path: Path, runtime: str, variant: Variant, context: Context) -> Answers:
    split = None if context.data is None else context.data.val
    return answers(
        path, runtime, variant.input, split=split, threads=context.train_threads, seed=context.seed
    )


def _fastest_unmodified(unmodified: dict[str, Path], timings: dict[str, latency.Timing]) -> str:
    """The contender that is the original in the runtime that is fastest with it as it is."""
    alone = [_alone(name) for name in unmodified if _alone(name) in timings]
    return min(alone or [ORIGINAL], key=lambda name: timings[name].latency.p50)


def _intervals(
    timings: dict[str, latency.Timing], unmodified: dict[str, Path], best: str
) -> dict[str, dict[str, float]]:
    """The report's ratios of latencies with the bounds of their 95 % intervals."""
    alone = _fastest_unmodified(unmodified, timings)
    pairs = {
        "latency_p50": (ORIGINAL, best),
        "allocator_alone": (DEFAULT_ALLOCATOR, ORIGINAL),
        "runtime_alone": (ORIGINAL, alone),
        "beyond_runtime": (alone, best),
    }
    return {
        key: asdict(latency.ratio(timings[before], timings[after]))
        for key, (before, after) in pairs.items()
        if before in timings and before != after
    }


def _best_unmodified(
    original: Measurement, unmodified: dict[str, Path], timings: dict[str, latency.Timing], run: Run
) -> Measurement:
    """The original in the runtime that is fastest with it as it is."""
    contender = _fastest_unmodified(unmodified, timings)
    fastest = next((name for name in unmodified if _alone(name) == contender), "eager")
    return replace(
        _retimed(original, timings[contender]),
        runtime=fastest,
        size_bytes=size.artifact_bytes(unmodified.get(fastest, _original_file(run))),
    )


def _timed(figures: Measurement, timing: latency.Timing) -> Measurement:
    return replace(
        figures,
        latency_ms=timing.latency,
        throughput_ips=timing.throughput_ips,
        peak_rss_bytes=timing.peak_rss_bytes,
        precision=timing.precision,
    )


def _retimed(original: Measurement, timing: latency.Timing) -> Measurement:
    """The original's figures as another runtime or allocator gives them.

    Accuracy stands for eager PyTorch alone.
    """
    return replace(_timed(original, timing), top1=None, top5=None)


def _placed(
    run: Run, variant: Variant, files: dict[str, Path], timings: dict[str, latency.Timing], *, number: int
) -> list[Artifact]:
    """Copy every artifact to its place in the bundle; beside one of the own graph a `model.pt2` too."""
    bundle.clear(run.folder)
    parts: list[Artifact] = []
    for name, path in files.items():
        parts += bundle.place(
            run.folder,
            path,
            runtime_of(name),
            precision=timings[name].precision,
            latency_ms=timings[name].latency.p50,
            spread=timings[name].latency.spread,
            max_abs_diff=(variant.details.get(name) or {}).get("max_abs_diff"),
        )
    places = {bundle.PLACES[runtime_of(name)] for name in files}
    if bundle.PLACES["eager"] not in places and not all(map(form_of, files)):
        checkpoint = runtimes.write(variant, "eager", run.workdir / f"{number:03d}-ship")
        parts += bundle.place(run.folder, checkpoint, "eager", precision=variant.precision)
    return parts


def _reason(verdict: Verdict, *, last_resort: bool) -> str:
    reason = verdict.reason
    if verdict.doubt and verdict.doubt not in reason:
        reason = f"{reason} ({verdict.doubt})"
    if verdict.accepted:
        return f"gate met: {reason}" if reason else "gate met"
    if last_resort:
        return f"no variant met the gate, the lossless one is shipped: {reason}"
    return f"gate missed: {reason}"
