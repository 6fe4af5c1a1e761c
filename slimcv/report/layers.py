"""A profile drawn: its layers, totals, kinds and advice on a terminal and in Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from slimcv.quoting import cell, one_line
from slimcv.report import figures, pasting, predictions, reach
from slimcv.report.markdown import grid, repeating
from slimcv.report.terminal import draw, table

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

PREDICTED = "What each step would give, one at a time"

FOR_SPEED, FOR_SIZE = "for a recipe, to save time", "for a recipe, to save bytes"
FOR_EACH = "for a recipe's steps, a line for each of them alone"

_WORTH_A_ROW = 0.001
"""A layer with less than a thousandth of the time and of the parameters gets no row in a drawn table."""

RUNTIMES = {
    "eager": "eager PyTorch",
    "openvino": "OpenVINO",
    "onnxruntime": "ONNX Runtime",
    "inductor": "Inductor",
}
"""What people call the places where layers are timed."""

_NETWORK = "(network)"
"""What belongs to no block."""

_LAYER_HEADINGS = ("layer", "kind", "output", "parameters", "MACs", "ms", "share", reach.OF_LIMIT)
_KIND_HEADINGS = ("kind", "layers", "parameters", "MACs", "ms", "share", reach.OF_LIMIT)


def render_profile_text(profile: Mapping[str, Any], *, colour: bool) -> str:
    """The profile for a terminal, at most 80 columns wide."""
    from rich.padding import Padding
    from rich.text import Text

    own = {**profile, "layers": [layer for layer in profile["layers"] if not layer["merged_into"]]}
    parts: list[RenderableType] = [Text(_title(profile)), _layers_table(own)]
    parts.append(_reach_table("layer", "name", _shown(own)))
    parts += [Text(line) for line in (_merged(profile), _left_out(own)) if line]
    for heading, groups in (("block", profile["by_block"]), ("kind", profile["by_kind"])):
        cells = [[one_line(text) for text in line] for line in _groups(groups)]
        headings = (heading, *_KIND_HEADINGS[1:])
        parts += [table(headings, cells, right=range(1, len(headings)))] if cells else []
        parts += [_reach_table(heading, "kind", groups)] if groups else []
    parts += [*(Text(one_line(f"{label}: {value}")) for label, value in totals(profile)), ""]
    parts += _predictions_text(profile)
    parts.append(Text("What dominates, and what to do about it", style="bold"))
    for number, advice in enumerate(profile["advice"], start=1):
        parts.append(Padding(Text(f"{number}. {one_line(advice['text'])}"), (0, 0, 0, 2)))
    if not profile["advice"]:
        parts.append(Text("  nothing stands out"))
    parts += ["", Text("What this CPU makes of it", style="bold")]
    for number, found in enumerate(_lint(profile), start=1):
        parts.append(Padding(Text(f"{number}. {one_line(found)}"), (0, 0, 0, 2)))
    parts.append(Padding(Text(_in_order(profile)), (0, 0, 0, 2)))
    return draw(parts, colour=colour)


def _layers_table(profile: Mapping[str, Any]) -> Table:
    """The layers that take time of their own, without shapes, for which a terminal has no room."""
    cells = [
        (one_line(name), kind.removesuffix(" convolution"), *numbers)
        for name, kind, _, *numbers in _layers(profile)
    ]
    headings = [heading for heading in _LAYER_HEADINGS if heading != "output"]
    return table(headings, cells, right=range(2, len(headings)))


def _reach_table(heading: str, key: str, costs: Iterable[Mapping[str, Any]]) -> Table:
    """What there is no room for beside the times."""
    headings = (heading, *reach.HEADINGS)
    cells = [(one_line(cost[key] or _NETWORK), *reach.cells(cost)) for cost in costs]
    return table(headings, cells, right=range(1, len(headings)))


def _predictions_text(profile: Mapping[str, Any]) -> list[RenderableType]:
    from rich.padding import Padding
    from rich.text import Text

    lines = predictions.rows(profile)
    if not lines:
        return []
    shown = [predictions.HEADINGS.index(heading) for heading in predictions.ON_A_TERMINAL]
    cells = [[one_line(line[at]) for at in shown] for line in lines]
    parts: list[RenderableType] = [
        Text(PREDICTED, style="bold"),
        table(predictions.ON_A_TERMINAL, cells, right=range(1, len(shown))),
        *(Padding(Text(f"{line[0]}: {one_line(line[-1])}"), (0, 0, 0, 2)) for line in lines if line[-1]),
    ]
    left_out = predictions.left_out(profile)
    parts += [Text(one_line(f"not foretold: {left_out}"))] if left_out else []
    for title, pasted in _recipes(profile):
        parts += ["", Text(f"{title}:"), Text(pasted)]
    return [*parts, ""]


def _predictions_markdown(profile: Mapping[str, Any]) -> list[str]:
    lines, left_out = predictions.rows(profile), predictions.left_out(profile)
    if not lines:
        return []
    return [
        f"## {PREDICTED}",
        grid(predictions.HEADINGS, lines, left=predictions.LEFT),
        f"an epoch is one of {predictions.PICTURES:,} pictures",
        cell(f"not foretold: {left_out}") if left_out else "",
        *(f"{title}:\n\n```yaml\n{pasted}\n```" for title, pasted in _recipes(profile)),
    ]


def _recipes(profile: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Lines to paste, with what they are for."""
    found = (
        (FOR_EACH, pasting.each(profile)),
        (FOR_SPEED, pasting.for_speed(profile)),
        (FOR_SIZE, pasting.for_size(profile)),
    )
    return [(title, pasted) for title, pasted in found if pasted]


def render_profile_markdown(profile: Mapping[str, Any]) -> str:
    """The profile as GitHub-flavoured Markdown."""
    advice = [f"{number}. {cell(one['text'])}" for number, one in enumerate(profile["advice"], start=1)]
    sections = [
        f"# {cell(_title(profile))}",
        *_predictions_markdown(profile),
        "## What dominates, and what to do about it",
        "\n".join(advice) or "nothing stands out",
        "## What this CPU makes of it",
        "\n".join(f"{number}. {cell(line)}" for number, line in enumerate(_lint(profile), start=1)),
        cell(_in_order(profile)),
        "## Totals",
        grid(("", "value"), totals(profile), left=2),
        "## By kind",
        _groups_grid("kind", profile["by_kind"]),
        "## By block" if profile["by_block"] else "",
        _groups_grid("block", profile["by_block"]) if profile["by_block"] else "",
        "## Layers",
        grid((*_LAYER_HEADINGS, *reach.HEADINGS), _beside(_layers(profile), _shown(profile)), left=3),
        cell(_left_out(profile)),
        *repeating(profile),
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def _groups_grid(heading: str, groups: Sequence[Mapping[str, Any]]) -> str:
    return grid((heading, *_KIND_HEADINGS[1:], *reach.HEADINGS), _beside(_groups(groups), groups))


def _beside(lines: Iterable[tuple[str, ...]], costs: Iterable[Mapping[str, Any]]) -> list[tuple[str, ...]]:
    """The lines of a table with what each layer or group moves and reaches."""
    return [(*line, *reach.cells(cost)) for line, cost in zip(lines, costs, strict=True)]


def _title(profile: Mapping[str, Any]) -> str:
    model = profile["model"]
    return f"{one_line(model['name'])}, input {model['input']}, batch 1"


def _lint(profile: Mapping[str, Any]) -> list[str]:
    """What costs time or limits what can be done, each with what to do about it."""
    found = [check for check in profile["lint"] if check["state"] != "fine"]
    return [check["text"] + (f". Fix: {check['fix']}" if check["fix"] else "") for check in found]


def _in_order(profile: Mapping[str, Any]) -> str:
    lint = profile["lint"]
    found = {check["rule"] for check in lint if check["state"] != "fine"}
    rules = dict.fromkeys(check["rule"] for check in lint if check["rule"] not in found)
    return f"in order: {', '.join(rules)}" if rules else ""


def _worth_a_row(layer: Mapping[str, Any], parameters: int) -> bool:
    return bool(layer["share"] >= _WORTH_A_ROW or layer["parameters"] > _WORTH_A_ROW * parameters)


def _shown(profile: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    parameters = profile["totals"]["parameters"]
    return [layer for layer in profile["layers"] if _worth_a_row(layer, parameters)]


def _layers(profile: Mapping[str, Any]) -> list[tuple[str, ...]]:
    return [
        (
            layer["name"],
            layer["kind"],
            _shape(layer["output"]),
            figures.count(layer["parameters"]),
            figures.count(layer["macs"]),
            f"in {layer['merged_into']}" if layer["merged_into"] else _milliseconds(layer["ms"]),
            figures.share(layer["share"]),
            reach.of_limit(layer),
        )
        for layer in _shown(profile)
    ]


def _merged(profile: Mapping[str, Any]) -> str:
    merged = sum(bool(layer["merged_into"]) for layer in profile["layers"])
    runtime = profile["totals"]["runtime"]
    calls = f"{merged} call{'s' if merged != 1 else ''}"
    return f"not shown: {calls} that {runtime} does inside others" if merged else ""


def _left_out(profile: Mapping[str, Any]) -> str:
    parameters = profile["totals"]["parameters"]
    hidden = sum(not _worth_a_row(layer, parameters) for layer in profile["layers"])
    return f"not shown: {hidden} calls with under 0.1 % of the time and of the parameters" if hidden else ""


def _groups(groups: Sequence[Mapping[str, Any]]) -> list[tuple[str, ...]]:
    return [
        (
            kind["kind"] or _NETWORK,
            str(kind["layers"]),
            figures.count(kind["parameters"]),
            figures.count(kind["macs"]),
            _milliseconds(kind["ms"]),
            figures.share(kind["share"]),
            reach.of_limit(kind),
        )
        for kind in groups
    ]


def totals(profile: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The figures of the whole network, each with its name."""
    totals = profile["totals"]
    threads = f"{totals['threads']} thread{'s' if totals['threads'] != 1 else ''}"
    peak = f"{figures.size(totals['peak_activation_bytes'])} (at '{totals['peak_activation_layer']}')"
    quantile = "medians" if totals["runtime"] == "eager" else "lower quartiles"
    lines = [
        ("parameters", f"{totals['parameters']:,} ({figures.size(totals['weight_bytes'])} with buffers)"),
        ("MACs", figures.count(totals["macs"])),
        *_limits(profile),
        ("peak memory of the tensors between layers", peak),
        (
            "peak memory while predicting, weights included",
            figures.size(totals["peak_rss_bytes"])
            if totals["peak_rss_bytes"] is not None
            else "not measured",
        ),
        (
            f"time, {RUNTIMES.get(totals['runtime'], totals['runtime'])} {totals['precision']}, {threads}",
            f"{figures.milliseconds(totals['layers_ms'])} in the layers, "
            f"{figures.milliseconds(totals['call_ms'])} for a whole call ({quantile} of {totals['repeats']})",
        ),
    ]
    if totals["default_allocator_ms"] is not None:
        lines.append(
            (
                "whole call with the allocator as it is",
                f"{figures.milliseconds(totals['default_allocator_ms'])}, "
                f"tuned {figures.milliseconds(totals['tuned_allocator_ms'])}",
            )
        )
    return lines


def _limits(profile: Mapping[str, Any]) -> list[tuple[str, str]]:
    limits = profile["limits"]
    if limits is None:
        return []
    peaks = ", ".join(
        f"{name} {figures.significant(limits[f'{name}_gflops'])} GFLOP/s"
        for name in ("fp32", "bf16", "int8")
        if limits[f"{name}_gflops"]
    )
    return [("this machine at most", f"{peaks}, memory {figures.significant(limits['memory_gbytes'])} GB/s")]


def _milliseconds(value: float) -> str:
    """Without the unit, to a hundredth at best: a shorter time is mostly that of asking for it."""
    if value < 0.01:
        return "< 0.01"
    return f"{value:.2f}" if value < 10 else figures.significant(value)


def _shape(extents: list[int] | None) -> str:
    return figures.NOT_MEASURED if extents is None else "×".join(str(extent) for extent in extents)
