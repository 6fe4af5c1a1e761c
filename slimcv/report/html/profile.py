"""The page of a profile: what dominates, what this CPU makes of it, and every layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from slimcv.report import figures, reach
from slimcv.report.charts import rows, scale
from slimcv.report.html import foretold, repeating, roofline
from slimcv.report.html.parts import Block, Cell, Chart, Note, Page, Sections, Table, Tile, plain
from slimcv.report.layers import RUNTIMES, totals
from slimcv.report.reading import Finished

SHOWN = 30


def page(found: Finished) -> Page:
    """Advice first, then kinds of layers, layers and totals."""
    profile = found.document
    kept = profile["totals"]
    sections = Sections()
    sections.add("advice", "What dominates, and what to do about it", _advice(profile))
    sections.add("foretold", "What each step would give", foretold.of_profile(profile))
    sections.add("roofline", "Against this machine's limits", _roofline(profile))
    sections.add("kinds", "By kind of layer", [_costs(profile["by_kind"], "kind")])
    blocks = profile.get("by_block") or ()
    sections.add("blocks", "Block by block", [_costs(blocks, "block")] if len(blocks) > 1 else [])
    sections.add("layers", "Layer by layer", [_costs(profile["layers"], "layer")])
    sections.add("totals", "Totals", [plain("The whole network", ("", "value"), totals(profile), left=2)])
    sections.add("repeat", "How to repeat it", repeating.blocks(profile))
    return Page(
        title=f"{found.name}: where time and memory go",
        lead=f"Input {profile['model']['input']}, batch 1, {_where(profile)}.",
        tiles=(
            Tile(figures.milliseconds(kept["call_ms"]), "a call"),
            Tile(figures.count(kept["macs"]), "MACs"),
            Tile(figures.count(kept["parameters"]), "parameters"),
            Tile(figures.size(kept["peak_activation_bytes"]), "peak memory of the tensors between layers"),
        ),
        sections=tuple(sections.found),
    )


def _where(profile: Mapping[str, Any]) -> str:
    kept = profile["totals"]
    threads = f"{kept['threads']} thread{'s' if kept['threads'] != 1 else ''}"
    runtime = kept.get("runtime", "eager")
    return f"{RUNTIMES.get(runtime, runtime)} {kept.get('precision', 'fp32')}, {threads}"


def _roofline(profile: Mapping[str, Any]) -> list[Block]:
    network = roofline.Network("a layer", "after", profile["layers"])
    return roofline.blocks(profile.get("limits"), [network], where=_where(profile))


def _advice(profile: Mapping[str, Any]) -> list[Block]:
    advice = [
        (
            str(at),
            one["text"],
            one["step"] or figures.NOT_MEASURED,
            f"{figures.share(one['share'])} of {one['of']}",
            "foretold saving" if _is_foretold(one) else "measured share, no prediction",
        )
        for at, one in enumerate(profile["advice"], start=1)
    ]
    checks = [
        (one["rule"], one["state"], one["text"], one["fix"] or "")
        for one in profile.get("lint", ())
        if one["state"] != "fine"
    ]
    blocks: list[Block] = []
    if advice:
        headings = ("#", "what", "step", "share", "which is")
        caption = "Advice: steps by the time they are foretold to save, then hints without a prediction"
        blocks.append(plain(caption, headings, advice, left=5))
    else:
        blocks.append(Note("Nothing stands out."))
    if checks:
        rules = ("rule", "state", "found", "fix")
        blocks.append(plain("What this CPU makes of it", rules, checks, left=4))
    return blocks


def _is_foretold(advice: Mapping[str, Any]) -> bool:
    """Whether the advice is from a prediction, be it of bytes alone."""
    return advice.get("saved_ms") is not None or advice.get("saved_bytes") is not None


def _costs(layers: Sequence[Mapping[str, Any]], what: str) -> Chart:
    """Milliseconds of each layer, each block, or each kind of layer."""
    key = "name" if what == "layer" else "kind"
    dearest = sorted(layers, key=lambda layer: -layer["ms"])[:SHOWN]
    drawn = [layer for layer in layers if layer in dearest]
    axis = scale.linear([layer["ms"] for layer in drawn], zero=True)
    marks = [
        (
            layer[key] or "(network)",
            layer["kind"] if what == "layer" else f"{layer['layers']} layers",
            f"{figures.milliseconds(layer['ms'])}, {figures.share(layer['share'])}",
            rows.bar(axis, 0.0, layer["ms"], "after"),
        )
        for layer in drawn
    ]
    lines = tuple(
        (
            Cell(layer[key] or "(network)"),
            Cell(layer["kind"] if what == "layer" else str(layer["layers"])),
            Cell(figures.milliseconds(layer["ms"]), layer["ms"]),
            Cell(figures.share(layer["share"]), layer["share"]),
            Cell(figures.count(layer["macs"]), layer["macs"]),
            Cell(figures.count(layer["parameters"]), layer["parameters"]),
            *map(Cell, reach.cells(layer), reach.values(layer)),
            Cell(reach.of_limit(layer), layer.get("roofline_share")),
        )
        for layer in layers
    )
    told = "Measured one picture at a time."
    if len(drawn) < len(layers):
        told += f" Drawn are the {len(drawn)} slowest of {len(layers)} in their order; the table has all."
    second = "kind" if what == "layer" else "layers"
    headings = (what, second, "time", "share", "MACs", "parameters", *reach.HEADINGS, reach.OF_LIMIT)
    told = told if what != "layer" else f"{told} What a runtime runs inside another layer counts there."
    return Chart(
        f"Time of each {what}",
        told,
        rows.chart(marks, axis, title="ms", tick=lambda value: f"{value:g}"),
        Table(f"Every {what}", headings, lines, frozenset({0, 1})),
    )
