"""report.md: the same tables for a pull request or a model card, and how to repeat the run."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping
from typing import Any

from slimcv.quoting import cell, fenced
from slimcv.report import comparison, figures, foretold, packing, rungs, sentences, trainings
from slimcv.report.text import difference

_LONGEST_LIST = 20


def render_markdown(report: Mapping[str, Any]) -> str:
    """The whole report as GitHub-flavoured Markdown."""
    model, recipe = report["model"], report["recipe"]
    name = cell(model.get("name") or model.get("source") or "model")
    sections = [
        f"# {name}" + (f", recipe {cell(recipe['name'])}" if recipe.get("name") else ""),
        f"**{cell(sentences.headline(report))}**",
        cell(sentences.gate(report)),
        cell(sentences.accuracy(report)),
        "## Before and after",
        before_after(report),
        cell(sentences.method(report)) + f"; {figures.NOT_MEASURED} stands for not measured.",
        *packing.sentence(report),
        "## What a runtime or an allocator alone gives",
        grid(("the unmodified network", "latency p50", "against the base"), comparison.unmodified(report)),
        comparison.beyond_runtime(report) or "",
        *ways(report),
        "## Steps",
        _steps(report["steps"]),
        *_rungs(report),
        *_foretold(report),
        *_trainings(report),
        "## Files",
        _files(report["artifacts"]),
        "## Model",
        facts({key: value for key, value in model.items() if key != "name"}),
        "## Data",
        facts(report["data"]) if report["data"] else sentences.no_data(report),
        "## Machine and versions",
        facts(report["environment"]),
        "## How to repeat",
        _repeat(report),
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def ways(report: Mapping[str, Any]) -> list[str]:
    """Heading and table of the bake-off; nothing where there was none."""
    rows = [(way.name, way.precision, way.latency, way.outcome) for way in comparison.bake_off(report)]
    headings = ("the optimised network in", "precision", "latency p50", "")
    return ["## Every way to run it", grid(headings, rows, left=2)] if rows else []


def _rungs(report: Mapping[str, Any]) -> list[str]:
    found = ["## INT8, rung by rung"]
    for step in rungs.quantized(report):
        told = cell(f"{rungs.title(step)}: {rungs.sentence(step)}.")
        found += [told, grid(rungs.HEADINGS, rungs.rows(step), left=2)]
    return found if len(found) > 1 else []


def _foretold(report: Mapping[str, Any]) -> list[str]:
    rows, sentence = foretold.rows(report), foretold.sentence(report)
    told = [f"{sentence[0].upper()}{sentence[1:]}."] if sentence else []
    return ["## Foretold and measured", grid(foretold.HEADINGS, rows), *told] if rows else []


def _trainings(report: Mapping[str, Any]) -> list[str]:
    told = [f"- {cell(line[:1].upper() + line[1:])}." for line in trainings.lines(report)]
    return ["## Training", "\n".join(told)] if told else []


def grid(headings: Iterable[str], lines: Iterable[Iterable[str]], *, left: int = 1) -> str:
    """A Markdown table; every cell is escaped, columns after the first `left` are set to the right."""
    titles = [cell(heading) for heading in headings]
    rule = ["---"] * left + ["---:"] * (len(titles) - left)
    body = [[cell(text) for text in line] for line in lines]
    return "\n".join(f"| {' | '.join(line)} |" for line in [titles, rule, *body])


def facts(values: Mapping[str, Any]) -> str:
    """A mapping as a list, nested mappings indented; long lists are cut and say so."""
    return "\n".join(_facts(values, "")) or "nothing recorded"


def _facts(values: Mapping[str, Any], indent: str) -> list[str]:
    lines = []
    for key, value in values.items():
        if isinstance(value, Mapping):
            lines.append(f"{indent}- {cell(key)}:")
            lines += _facts(value, indent + "  ")
        elif isinstance(value, list):
            shown = ", ".join(cell(_item(item)) for item in value[:_LONGEST_LIST])
            more = f" … and {len(value) - _LONGEST_LIST} more" if len(value) > _LONGEST_LIST else ""
            lines.append(f"{indent}- {cell(key)}: {shown or 'none'}{more}")
        else:
            lines.append(f"{indent}- {cell(key)}: {figures.NOT_MEASURED if value is None else cell(value)}")
    return lines


def repeating(document: Mapping[str, Any]) -> list[str]:
    """Machine, versions and command of a command's JSON; what an older version did not write is left out."""
    sections = []
    if document.get("environment"):
        sections += ["## Machine and versions", facts(document["environment"])]
    if document.get("command"):
        sections += ["## How to repeat", fenced(shlex.join(document["command"]), "sh")]
    return sections


def _item(item: Any) -> str:
    return ": ".join(str(part) for part in item.values()) if isinstance(item, Mapping) else str(item)


def before_after(report: Mapping[str, Any]) -> str:
    """Every figure of original and optimised network, with the change."""
    lines = [(row.label, row.original, row.optimized, row.change) for row in comparison.rows(report)]
    return grid(("", "original", "optimised", "change"), lines)


def side_by_side(runs: Iterable[tuple[str, Mapping[str, Any]]]) -> str:
    """What each of several runs made of its original, as (name, report)."""
    lines = []
    for name, report in runs:
        after = report["optimized"]
        lines.append(
            (
                name,
                f"{after['runtime']} {after['precision']}",
                comparison.latency_of(after),
                comparison.speed_of(report),
                figures.percent(after["top1"]),
                figures.points(report["ratios"]["top1"]),
                figures.size(after["size_bytes"]),
                figures.count(after["parameters"]),
                sentences.verdict(report["gate"]),
            )
        )
    headings = ("run", "runs in", "latency p50", "speed", "top-1", "change", "size", "parameters", "gate")
    return f"# {len(lines)} runs side by side\n\n{grid(headings, lines, left=2)}\n"


def _steps(steps: Iterable[Mapping[str, Any]]) -> str:
    lines = []
    for step in steps:
        after = step["measurement"] or {}
        reasons = [step["reason"], sentences.accuracy_note(step)]
        lines.append(
            (
                str(step["number"]),
                step["name"],
                step["outcome"],
                "; ".join(words for words in reasons if words),
                sentences.top1(after),
                comparison.latency_of(after),
                comparison.changes_of(step),
                figures.count(after.get("parameters")),
                figures.count(after.get("macs")),
                figures.duration(step["seconds"]),
            )
        )
    headings = ("#", "step", "outcome", "reason", "top-1", "latency p50", "gain", "parameters", "MACs")
    note = (
        "Top-1 of a step is that of the tuning split, in brackets the 95 % interval of its difference from "
        "the original's; its gain is the speed-up over what it was applied to."
    )
    return f"{grid((*headings, 'took'), lines, left=4)}\n\n{note}"


def _files(artifacts: list[Mapping[str, Any]]) -> str:
    if not artifacts:
        return "none"
    lines = [
        (
            artifact["path"],
            f"{artifact['runtime']} {artifact['precision']}",
            figures.size(artifact["bytes"]),
            figures.milliseconds(artifact["latency_ms"], spread=artifact.get("spread")),
            difference(artifact["max_abs_diff"]),
            artifact["sha256"],
        )
        for artifact in artifacts
    ]
    return grid(("file", "runs in", "size", "latency p50", "max. difference", "SHA-256"), lines, left=2)


def _repeat(report: Mapping[str, Any]) -> str:
    blocks = [fenced(shlex.join(typed_command(report)), "sh")]
    if report["recipe"].get("text"):
        blocks += ["with this recipe:", fenced(report["recipe"]["text"], "yaml")]
    return "\n\n".join(blocks)


def typed_command(report: Mapping[str, Any]) -> list[str]:
    """The command line as it was typed, or put together from what the report knows."""
    return report.get("command") or _command(report)


def _command(report: Mapping[str, Any]) -> list[str]:
    """The command line put together from what the report knows, where the typed one was not recorded."""
    model, data = report["model"], report["data"] or {}
    words = ["slimcv", "optimize", str(model.get("source") or model.get("name") or "model.pt")]
    options = {
        "--recipe": report["recipe"].get("name"),
        "--data": data.get("source"),
        "--arch": model.get("arch"),
        "--input": model.get("input") if isinstance(model.get("input"), str) else None,
        "--max-drop": report["gate"]["max_drop"],
        "--min-speedup": report["gate"]["min_speedup"],
        "--threads": report["optimized"]["threads"],
    }
    for override in report["recipe"].get("overrides") or ():
        words += ["--set", str(override)]
    for option, value in options.items():
        if value is not None:
            words += [option, str(value)]
    return words
