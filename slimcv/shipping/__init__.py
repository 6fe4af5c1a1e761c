"""What is shipped: the final measurement of original against optimised variant, and the verdict on val/."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import TYPE_CHECKING

from slimcv import bakeoff, paired, runtimes
from slimcv.bakeoff import form_of, runtime_of
from slimcv.gate import Gate, judge
from slimcv.measure import environment, latency, layers, size
from slimcv.measure.variant import Answers, measurement
from slimcv.results import Measurement, Record
from slimcv.shipping import answering, contenders, figures, judging, placing
from slimcv.shipping.answering import ORIGINAL_ANSWERS, SHIPPED_ANSWERS
from slimcv.shipping.judging import SHIP

if TYPE_CHECKING:
    from slimcv.run import Run
    from slimcv.step import Context, Variant

__all__ = ["ORIGINAL_ANSWERS", "SHIP", "SHIPPED_ANSWERS", "ship"]


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
    files = contenders.files_of(variant, run, number)
    original_answers = answering.original_answers(context, run)
    original = measurement(
        context.teacher,
        runtime="eager",
        size_bytes=size.artifact_bytes(contenders.original_file(run)),
        threads=context.threads,
        macs=macs[0],
        given=original_answers,
    )
    accuracy_gate = gate.model_copy(update={"min_speedup": None, "max_size": None})
    evaluated: dict[str, Measurement] = {}
    said: dict[str, Answers] = {}

    def evaluate(name: str) -> Measurement:
        if name not in evaluated:
            runtime = runtime_of(name)
            said[name] = answering.answers_of(files[name], runtime, variant, context)
            found = measurement(
                variant,
                runtime=runtime,
                size_bytes=size.artifact_bytes(files[name]),
                threads=context.threads,
                macs=macs[1],
                given=said[name],
                original=original_answers,
            )
            evaluated[name] = replace(found, int8_mac_share=None) if form_of(name) else found
        return evaluated[name]

    def accurate_forms() -> set[str]:
        """Files of one form answer alike, which was proved when they were made: one speaks for all."""
        spoken = {form_of(name): name for name in (*reversed(files), *evaluated, meant)}
        return {
            form
            for form, name in spoken.items()
            if judge(accuracy_gate, candidate=evaluate(name), original=original).accepted
        }

    meant = variant.runtime if variant.runtime in files else next(iter(files))
    if not (accurate_forms() or last_resort):
        accuracy = judge(accuracy_gate, candidate=evaluate(meant), original=original)
        missed = {"gate_met": False, "accuracy_met": False}
        return judging.record(number, original, evaluate(meant), verdict=accuracy, details=missed)
    heat = None
    if bake_off:
        folder = run.workdir / f"{number:03d}-bake-off"
        heat = bakeoff.heat(variant, files, context=context, folder=folder)
        files = heat.files
    unmodified = contenders.unmodified_files(context, run)
    timings = contenders.timed_together(
        context, run, variant, files=files, unmodified=unmodified, quick=quick
    )
    files = {name: path for name, path in files.items() if name in timings}
    refused = judging.refused(files, accurate_forms())
    allowed = [name for name in files if name not in refused] or list(files)
    best = min(allowed, key=lambda name: timings[name].latency.p50)
    optimized = figures.timed(evaluate(best), timings[best])
    run.remember(answering.SHIPPED_ANSWERS, {"predictions": said[best].predictions.tolist()})
    shipped = placing.one_a_runtime(allowed, best)
    original = figures.timed(original, timings[contenders.ORIGINAL])
    if "finetune" in variant.details:
        original = replace(original, train_seconds_per_epoch=answering.original_pace(context, run))
    speed = latency.ratio(
        timings[contenders.ORIGINAL], timings[best], confidence=gate.confidence or paired.CONFIDENCE
    )
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
        "original_default_allocator": figures.retimed(
            original, timings.get(contenders.DEFAULT_ALLOCATOR, timings[contenders.ORIGINAL])
        ).as_json(),
        "environment": environment.describe().as_json(),
        "samples_ms": {name: [float(f"{ms:.5g}") for ms in timings[name].samples_ms] for name in timings},
        "intervals": contenders.intervals(timings, unmodified, best),
        "layers": {
            key: [asdict(cost) for cost in layers.costs(each.model, each.input)]
            for key, each in (("original", context.teacher), ("optimized", variant))
        },
        "best_unmodified": figures.best_unmodified(original, unmodified, timings, run).as_json(),
        "artifacts": [
            asdict(part)
            for part in placing.placed(
                run, variant, {name: files[name] for name in shipped}, timings, number=number
            )
        ]
        if verdict.accepted or last_resort
        else [],
    }
    found = judging.record(
        number, original, optimized, verdict=verdict, details=details, last_resort=last_resort
    )
    return replace(found, reason="; ".join(filter(None, (found.reason, judging.race(files, timings, best)))))
