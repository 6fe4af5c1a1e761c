"""Two profiles drawn side by side."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from slimcv.quoting import cell, one_line
from slimcv.report import figures
from slimcv.report.layers import RUNTIMES
from slimcv.report.markdown import grid, repeating
from slimcv.report.terminal import draw, table

HEADINGS = ("layer", "kind", "ms", "ms", "", "MACs", "MACs", "parameters", "parameters")
_SHORT_HEADINGS = ("layer", "ms", "then", "faster", "MACs", "then", "parameters", "then")
"""Those of a terminal, where neither the kinds nor words for each ratio have room: names need it."""

_LEAST = 0.001
"""A row with less than a thousandth of either profile's time, MACs and parameters is not drawn."""


def render_difference(difference: Mapping[str, Any], format: str, *, colour: bool) -> str:
    """A `Difference.as_json()` as text, JSON or Markdown. Raises SlimcvError on an unknown format."""
    from slimcv.report import as_json, check_format

    check_format(format)
    if format == "json":
        return as_json(difference)
    shown = [pair for pair in difference["layers"] if _worth_a_row(pair, difference)]
    lines = [*map(row, shown), whole(difference)]
    names = " → ".join(f"{one['name']} ({one['input']})" for one in difference["models"])
    if format == "markdown":
        told = [f"- {cell(line)}" for line in profiled(difference)]
        sections = [
            f"# {cell(names)}",
            "\n".join(told),
            grid(HEADINGS, lines, left=2),
            *repeating(difference),
        ]
        return "\n\n".join(sections) + "\n"
    from rich.text import Text

    ratios = [*map(_ratio, shown), _times(*(totals["layers_ms"] for totals in difference["totals"]))]
    cells = [
        [one_line(text) for text in (line[0], *line[2:4], ratio or line[4], *line[5:])]
        for line, ratio in zip(lines, ratios, strict=True)
    ]
    drawn = table(_SHORT_HEADINGS, cells, right=range(1, len(_SHORT_HEADINGS)))
    texts = [Text(one_line(line)) for line in (names, *profiled(difference))]
    return draw([*texts, drawn], colour=colour)


def profiled(difference: Mapping[str, Any]) -> list[str]:
    """Which file of each side was profiled in which runtime, and why not the one that a bundle serves."""
    lines = []
    for model, totals in zip(difference["models"], difference["totals"], strict=True):
        where = RUNTIMES.get(totals["runtime"], totals["runtime"])
        serves, file = model.get("serves"), model.get("file")
        line = f"{model['name']}: {f'its {file}' if serves else 'itself'} in {where}"
        line += f" {totals['precision']}" if totals.get("precision") else ""
        if serves and serves["path"] != file:
            line += (
                f"; it serves {serves['path']} ({serves['runtime']} {serves['precision']}), which does not "
                "keep the names of layers"
            )
        elif serves and serves["runtime"] != totals["runtime"]:
            line += f"; it serves that file in {serves['runtime']} {serves['precision']}"
        lines.append(line)
    return lines


def row(pair: Mapping[str, Any]) -> tuple[str, ...]:
    """A layer, or the kind of operator, in the words of `HEADINGS`."""
    before, after = pair["before"], pair["after"]
    kinds = dict.fromkeys(kind for cost in (before, after) if cost for kind in cost["kinds"])
    if before is None or after is None:
        change = "new" if before is None else "gone"
    else:
        change = _faster(before["ms"], after["ms"])
    return (
        pair["name"],
        ", ".join(kinds),
        *(_or_none(cost, "ms", _ms) for cost in (before, after)),
        change,
        *(_or_none(cost, "macs", figures.count) for cost in (before, after)),
        *(_or_none(cost, "parameters", figures.count) for cost in (before, after)),
    )


def whole(difference: Mapping[str, Any]) -> tuple[str, ...]:
    """The last row: all layers of both."""
    before, after = difference["totals"]
    return (
        "all layers",
        "",
        _ms(before["layers_ms"]),
        _ms(after["layers_ms"]),
        _faster(before["layers_ms"], after["layers_ms"]),
        *(figures.count(one["macs"]) for one in (before, after)),
        *(figures.count(one["parameters"]) for one in (before, after)),
    )


def _worth_a_row(pair: Mapping[str, Any], difference: Mapping[str, Any]) -> bool:
    keys = (("ms", "layers_ms"), ("macs", "macs"), ("parameters", "parameters"))
    sides = zip((pair["before"], pair["after"]), difference["totals"], strict=True)
    return any(cost[key] > _LEAST * totals[whole] for cost, totals in sides if cost for key, whole in keys)


def _or_none(cost: Mapping[str, Any] | None, key: str, written: Any) -> str:
    return figures.NOT_MEASURED if cost is None else str(written(cost[key]))


def _ms(value: float) -> str:
    return "< 0.01" if value < 0.01 else figures.significant(value, 2)


def _ratio(pair: Mapping[str, Any]) -> str:
    """How many times faster a layer became, nothing where there is but one."""
    before, after = pair["before"], pair["after"]
    return _times(before["ms"], after["ms"]) if before and after else ""


def _times(before: float, after: float) -> str:
    return f"{figures.significant(before / after, 2)}×" if before and after else ""


def _faster(before: float, after: float) -> str:
    return figures.times(before / after, "faster", "slower", digits=2) if before and after else ""
