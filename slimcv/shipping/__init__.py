"""What is shipped: the final measurement of original against optimised variant, and the verdict on val/."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import TYPE_CHECKING

from slimcv import bakeoff, paired, parity
from slimcv.bakeoff import FLOATS, form_of
from slimcv.gate import Gate, judge
from slimcv.measure import environment, latency, layers, size
from slimcv.measure.variant import computed_exactly, measurement
from slimcv.results import Record
from slimcv.shipping import answering, contenders, figures, judging, placing
from slimcv.shipping.answering import ORIGINAL_ANSWERS, SHIPPED_ANSWERS
from slimcv.shipping.evaluating import Evaluations
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
    in_floats: Variant | None = None,
    left_out: Mapping[str, str] | None = None,
    lossless: bool = False,
    forced: str | None = None,
    bake_off: bool = True,
    quick: bool = False,
) -> Record:
    """Time the original, its best unmodified runtime and every artifact of `variant`; judge the fastest.

    The artifact is evaluated on val/ through the runtime that will serve it. Where that misses the gate's
    accuracy, the verdict falls before anything is timed, unless this is the `last_resort`: that variant is
    shipped even when it misses the gate, and `details["gate_met"]` says so. All are timed interleaved. With
    `bake_off` whatever else can run the variant here is tried beforehand (see slimcv.bakeoff), of a quantised
    one `in_floats`, what it was made from, too, and of one that is to be `lossless` only what keeps to its
    outputs as closely; `left_out` says of candidates why they are none. `forced` is
    the only candidate that may serve: a variant without a file for its runtime misses the gate. `quick` takes
    fewer calls. The record's `measurement` is the optimised variant's, `before` the original's; `details`
    hold what the report adds to them. `macs` are the original's and the variant's.
    """
    files, otherwise = contenders.files_or_why_not(
        variant, context, run, number, forced=forced, left_out=left_out or {}
    )
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
    evaluations = Evaluations(
        variant,
        in_floats,
        context=context,
        gate=accuracy_gate,
        original=original,
        original_answers=original_answers,
        macs=macs[1],
    )
    meant = variant.runtime if variant.runtime in files else next(iter(files))
    if not last_resort and (otherwise or not evaluations.accurate_forms(files, meant=meant)):
        missing = evaluations.of(meant, files[meant])
        accuracy = judge(accuracy_gate, candidate=missing, original=original)
        missed = {"gate_met": False, "accuracy_met": False, "not_as_asked": otherwise}
        verdict = judging.as_asked(accuracy, otherwise)
        return judging.record(number, original, missing, verdict=verdict, details=missed)
    heat = None
    if bake_off:
        folder = run.workdir / f"{number:03d}-bake-off"
        heat = bakeoff.heat(
            variant,
            files,
            context=context,
            folder=folder,
            in_floats=in_floats,
            left_out=left_out,
            lossless=lossless,
        )
        files = heat.files
    unmodified = contenders.unmodified_files(context, run)
    timings, died = contenders.timed_together(
        context, run, variant, files=files, unmodified=unmodified, quick=quick
    )
    files = {name: path for name, path in files.items() if name in timings}
    accurate = evaluations.accurate_forms(files, meant=meant)
    refused = judging.refused(files, accurate, max_size=gate.max_size)
    allowed = sorted(
        (name for name in files if name not in refused or len(refused) == len(files)),
        key=lambda name: timings[name].latency.p50,
    )
    wrong = evaluations.missing_before_the_first_right(allowed, files) if accurate else []
    refused |= dict.fromkeys(wrong, judging.INACCURATE)
    allowed = [name for name in allowed if name not in wrong]
    best = allowed[0]
    optimized = figures.timed(evaluations.of(best, files[best]), timings[best])
    run.remember(answering.SHIPPED_ANSWERS, {"predictions": evaluations.said[best].predictions.tolist()})
    shipped = placing.one_a_place(allowed, best)
    served = evaluations.variant_of(best)
    original = figures.timed(original, timings[contenders.ORIGINAL])
    if "finetune" in variant.details:
        original = replace(original, train_seconds_per_epoch=answering.original_pace(context, run))
    speed = latency.ratio(
        timings[contenders.ORIGINAL], timings[best], confidence=gate.confidence or paired.CONFIDENCE
    )
    verdict = judging.as_asked(judge(gate, candidate=optimized, original=original, speed=speed), otherwise)
    accuracy = judge(accuracy_gate, candidate=optimized, original=original)
    table = (
        []
        if heat is None
        else bakeoff.rows(
            heat.timings, timings, best=best, problems={**heat.problems, **died}, refused=refused
        )
    )
    details = {
        "gate_met": verdict.accepted,
        "gate_decided": verdict.decided,
        "undecided": verdict.undecided,
        "not_as_asked": otherwise,
        "bounds": [asdict(bound) for bound in verdict.judged],
        "pictures_needed": verdict.pictures_needed,
        "accuracy_met": accuracy.accepted,
        "serve": optimized.runtime,
        "form": form_of(best) or None,
        "quantizer": form_of(best) if form_of(best) not in ("", *FLOATS) else None,
        "computed_exactly": computed_exactly(served, files[best]),
        "moved_by_rounding": parity.moved_by_rounding(variant),
        "candidates": {name: timings[name].latency.p50 for name in files},
        "bake_off": [asdict(row) for row in table],
        "input": asdict(variant.input),
        "input_format": placing.fed(files[best], best),
        "original_default_allocator": figures.retimed(
            original, timings.get(contenders.DEFAULT_ALLOCATOR, timings[contenders.ORIGINAL])
        ).as_json(),
        "environment": environment.describe().as_json(),
        "samples_ms": {name: [float(f"{ms:.5g}") for ms in timings[name].samples_ms] for name in timings},
        "intervals": contenders.intervals(timings, unmodified, best),
        "layers": {
            key: [asdict(cost) for cost in layers.costs(each.model, each.input)]
            for key, each in (("original", context.teacher), ("optimized", served))
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
