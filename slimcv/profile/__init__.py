"""Where a model's time and memory go, layer by layer, and what to do about it."""

from __future__ import annotations

import torch
from torch import fx

from slimcv.measure import environment, macs, size
from slimcv.models import capture
from slimcv.profile import kinds
from slimcv.profile.advice import Findings, advise
from slimcv.profile.layers import SCHEMA_VERSION, Advice, Check, Kind, Layer, Profile, Totals, gather
from slimcv.profile.lint import Subject, lint
from slimcv.profile.timing import Timed, time_layers
from slimcv.profile.whole import compare_allocators
from slimcv.report import render_profile
from slimcv.step import Variant

__all__ = ["SCHEMA_VERSION", "Advice", "Check", "Kind", "Layer", "Profile", "Totals", "profile", "render"]

_CALLS = ("call_module", "call_function", "call_method")


def profile(
    variant: Variant, *, threads: int, repeats: int = 5, name: str = "model", allocators: bool = True
) -> Profile:
    """Profile `variant` in eager PyTorch, one picture at a time, as its user runs it.

    Every layer is timed in this process, with the allocator as it is, at least `repeats` times and for 0.3 s;
    so is what the lint looks at (see slimcv.profile.lint), some seconds for a large network.
    `allocators` also times whole calls in a process of their own, with the default and with the tuned
    allocator (some seconds, and a temporary file as large as the model). `name` is for the report.
    """
    model = variant.model
    capture.set_training(model, False)
    picture = capture.example(variant.input, batch=1)
    timed = time_layers(model, picture, threads=threads, repeats=repeats)
    layers = _layers(variant, timed)
    weight_bytes = _weight_bytes(model)
    whole = compare_allocators(variant, threads=threads) if allocators else None
    totals = Totals(
        parameters=size.parameters(model),
        buffers=size.buffers(model),
        macs=macs.count(model, variant.input),
        weight_bytes=weight_bytes,
        peak_activation_bytes=timed.peak_activation_bytes,
        peak_activation_layer=_names(model)[timed.peak_node],
        layers_ms=sum(layer.ms for layer in layers),
        call_ms=timed.whole_ms,
        between_layers=timed.between_layers,
        repeats=timed.repeats,
        threads=threads,
        default_allocator_ms=whole.default_ms if whole else None,
        tuned_allocator_ms=whole.tuned_ms if whole else None,
        peak_rss_bytes=None if timed.call_rss_bytes is None else timed.call_rss_bytes + weight_bytes,
    )
    findings = Findings(
        model=model,
        layers=layers,
        totals=totals,
        shapes=timed.shapes,
        input=variant.input.shape,
        has_int8_instructions=environment.has_int8_instructions(),
    )
    return Profile(
        model={
            "name": name,
            "input": str(variant.input),
            "precision": variant.precision,
            "classes": None if variant.classes is None else len(variant.classes),
        },
        layers=layers,
        totals=totals,
        by_kind=gather(layers),
        advice=advise(findings),
        lint=lint(Subject(model, picture, layers, timed.shapes, threads, whole)),
    )


def render(profile: Profile, format: str, *, colour: bool = False) -> str:
    """The profile as "text", "json" or "markdown". Raises SlimcvError on an unknown format."""
    return render_profile(profile.as_json(), format, colour=colour)


def _layers(variant: Variant, timed: Timed) -> tuple[Layer, ...]:
    model = variant.model
    parameters = _parameters(model)
    costs = {node.name: cost for node, cost in macs.by_node(model, variant.input).items()}
    total_ms = sum(timed.node_ms.values())
    return tuple(
        Layer(
            name=macs.layer_name(node),
            node=node.name,
            kind=kinds.kind_of(node, timed.shapes),
            output=timed.shapes[node.name][1:] if node.name in timed.shapes else None,
            parameters=parameters[node.name],
            macs=costs.get(node.name, 0),
            ms=timed.node_ms[node.name],
            share=timed.node_ms[node.name] / total_ms,
        )
        for node in model.graph.nodes
        if node.op in _CALLS
    )


def _names(model: fx.GraphModule) -> dict[str, str]:
    return {
        node.name: macs.layer_name(node) if node.op in _CALLS else node.name for node in model.graph.nodes
    }


def _parameters(model: fx.GraphModule) -> dict[str, int]:
    """Parameters by node; what several nodes share counts at the first."""
    counted: set[int] = set()
    found = {}
    for node in model.graph.nodes:
        if node.op not in _CALLS:
            continue
        tensors: list[torch.Tensor] = []
        if node.op == "call_module":
            tensors = list(model.get_submodule(str(node.target)).parameters())
        for source in node.all_input_nodes:
            if source.op == "get_attr":
                tensors += _attribute(model, str(source.target))
        new = [tensor for tensor in tensors if id(tensor) not in counted and _is_weight(tensor)]
        counted.update(id(tensor) for tensor in new)
        found[node.name] = sum(tensor.numel() for tensor in new)
    return found


def _attribute(model: fx.GraphModule, target: str) -> list[torch.Tensor]:
    value: object = model
    for part in target.split("."):
        value = getattr(value, part)
    return [value] if isinstance(value, torch.Tensor) else []


def _is_weight(tensor: torch.Tensor) -> bool:
    """A parameter, or a weight that quantisation folded into 8 bits."""
    return isinstance(tensor, torch.nn.Parameter) or tensor.dtype in (torch.int8, torch.uint8)


def _weight_bytes(model: fx.GraphModule) -> int:
    tensors = [*model.parameters(), *model.buffers()]
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
