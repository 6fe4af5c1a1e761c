"""Where a model's time and memory go, layer by layer, and what to do about it."""

from __future__ import annotations

from dataclasses import asdict, replace

from pydantic import ValidationError

from slimcv import recipe
from slimcv.measure import environment, size
from slimcv.models import capture
from slimcv.profile import counters, gathering
from slimcv.profile.advice import Findings, advise
from slimcv.profile.groups import gather, gather_blocks
from slimcv.profile.layers import (
    SCHEMA_VERSION,
    Advice,
    Check,
    Kind,
    Layer,
    Profile,
    Totals,
)
from slimcv.profile.lint import Subject, in_order, lint, machine
from slimcv.profile.prediction import Network, Prediction, predict_all, unforetold
from slimcv.profile.roofline import Limits, measured
from slimcv.profile.timing import time_layers
from slimcv.profile.whole import compare_allocators
from slimcv.report import render_profile
from slimcv.step import Variant

__all__ = [
    "RUNTIMES",
    "SCHEMA_VERSION",
    "Advice",
    "Check",
    "Kind",
    "Layer",
    "Prediction",
    "Profile",
    "Totals",
    "profile",
    "render",
]

RUNTIMES = ("eager", *counters.COUNTED)
"""Where layers can be timed."""


def profile(
    variant: Variant,
    *,
    threads: int,
    repeats: int = 5,
    name: str = "model",
    allocators: bool = False,
    runtime: str = "eager",
    limits: Limits | None = None,
    extras: bool = True,
) -> Profile:
    """Profile `variant` one picture at a time, its layers in a runtime of `RUNTIMES`.

    In eager PyTorch every layer is timed in this process, with the allocator as it is, at least `repeats`
    times and for 0.3 s; the other runtimes count themselves (see slimcv.profile.counters). So is what the
    lint looks at (see slimcv.profile.lint), always in eager PyTorch, some seconds for a large network.
    `allocators` last of all tunes this process's allocator and times whole calls once more, which takes a
    second and cannot be undone: it is for processes of slimcv's own. `limits` are this machine's, by
    default those in the user's cache, or measured now. Without `extras` there is neither lint nor advice nor
    prediction, which takes some four seconds. `name` is for the report. Raises SlimcvError where the
    runtime does not take the network.
    """
    model = variant.model
    capture.set_training(model, False)
    picture = capture.example(variant.input, batch=1)
    limits = limits or measured(threads=threads)
    timed = time_layers(model, picture, threads=threads, repeats=repeats)
    eager = gathering.layers_of(variant, timed)
    ran = None if runtime == "eager" else counters.count(variant, runtime, threads=threads)
    layers = eager if ran is None else gathering.counted(eager, ran)
    precision = _precision(variant) if ran is None else ran.precision
    needs = gathering.demands(model, eager, timed)
    asked = gathering.loads(layers, needs, limits, ran, precision=precision)
    layers = gathering.against_limits(layers, asked, limits)
    weight_bytes = gathering.weight_bytes(model)
    totals = Totals(
        parameters=size.parameters(model),
        buffers=size.buffers(model),
        macs=sum(layer.macs for layer in eager),
        weight_bytes=weight_bytes,
        peak_activation_bytes=timed.peak_activation_bytes,
        peak_activation_layer=gathering.names(model)[timed.peak_node],
        layers_ms=sum(layer.ms for layer in layers),
        call_ms=timed.whole_ms if ran is None else ran.call_ms,
        between_layers=timed.between_layers if ran is None else 0.0,
        repeats=timed.repeats if ran is None else ran.calls,
        threads=threads,
        peak_rss_bytes=None if timed.call_rss_bytes is None else timed.call_rss_bytes + weight_bytes,
        runtime=runtime,
        precision=precision,
        mapped_share=1.0 if ran is None else ran.mapped_share,
    )
    findings = Findings(
        model=model,
        layers=layers,
        totals=totals,
        shapes=timed.shapes,
        input=variant.input.shape,
        has_int8_instructions=environment.has_int8_instructions(),
    )
    by_node = {layer.node: layer for layer in layers if layer.node}
    network = Network(variant, by_node, timed.shapes, runtime, weight_bytes)
    checks = lint(Subject(model, picture, eager, timed.shapes, threads, limits)) if extras else []
    predictions = tuple(one.as_json() for one in _predictions(network, threads)) if extras else ()
    if allocators:
        whole = compare_allocators(model, picture, default_ms=timed.whole_ms, threads=threads)
        if whole is not None:
            totals = replace(totals, default_allocator_ms=whole.default_ms, tuned_allocator_ms=whole.tuned_ms)
            checks += [machine.allocator(whole)] if extras else []
    return Profile(
        model={
            "name": name,
            "input": str(variant.input),
            "precision": variant.precision,
            "classes": None if variant.classes is None else len(variant.classes),
        },
        layers=layers,
        totals=totals,
        by_kind=gather(layers, asked, limits),
        advice=advise(findings, predictions) if extras else (),
        lint=in_order(checks),
        by_block=gather_blocks(layers, asked, limits),
        limits=asdict(limits),
        predictions=predictions,
    )


def render(profile: Profile, format: str, *, colour: bool = False) -> str:
    """The profile as "text", "json" or "markdown". Raises SlimcvError on an unknown format."""
    return render_profile(profile.as_json(), format, colour=colour)


def _predictions(network: Network, threads: int) -> tuple[Prediction, ...]:
    """For every step there is, with its defaults; third parties' steps cannot be foretold."""
    steps, refused = [], []
    for name in recipe.step_names():
        kind = recipe.step_class(name)
        try:
            steps.append((name, kind()))
        except ValidationError as error:
            refused.append(unforetold(name, kind, network, _without_defaults(error)))
    return (*predict_all(network, steps, threads=threads), *refused)


def _without_defaults(error: ValidationError) -> str:
    """Why a step of another package cannot be built from its defaults."""
    missing = [str(fault["loc"][0]) for fault in error.errors() if fault["type"] == "missing"]
    if not missing:
        return f"its defaults are refused: {error.errors()[0]['msg']}"
    return f"needs the parameter{'s' if len(missing) > 1 else ''} {', '.join(missing)}"


def _precision(variant: Variant) -> str:
    """What eager PyTorch computes in: on dequantised values in an INT8 graph."""
    return "bf16" if variant.precision == "bf16" else "fp32"
