"""What there is to log about a finished command: read from its files, in no tracker's own words.

Figures of a step, a row or an epoch share one key and differ in the number of the step.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slimcv import __version__

_OF_RUN = (
    "report.json",
    "report.md",
    "report.html",
    "predictions.json",
    "golden.npz",
    "MODEL_CARD.md",
    "slimcv.json",
    "journal.jsonl",
)
"""With the artifacts the whole bundle, so that what was downloaded can be verified and serves itself."""

_OF_LADDER = ("ladder.json", "ladder.md", "ladder.svg", "report.html")
_CURVES = ("loss", "train_top1", "tuning_top1", "tuning_loss", "averaged_top1", "averaged_loss", "lr")


@dataclass(frozen=True)
class Metric:
    """A figure, and of which step, row or epoch it is."""

    key: str
    value: float
    step: int = 0


@dataclass(frozen=True)
class Facts:
    """A command's result: `files` and `texts` by the path they get, `sha256` of the JSON it comes from."""

    name: str
    note: str
    params: Mapping[str, str]
    metrics: tuple[Metric, ...]
    tags: Mapping[str, str]
    files: Mapping[str, Path]
    texts: Mapping[str, str]
    sha256: str


def of_run(folder: Path) -> Facts:
    """What `slimcv optimize` left in `folder`."""
    from slimcv.report import sentences

    text = (folder / "report.json").read_text("utf-8")
    report = json.loads(text)
    recipe, gate = report["recipe"], report["gate"]
    params = {
        "model": report["model"].get("source"),
        "arch": report["model"].get("arch"),
        "input": report["model"].get("input"),
        "recipe": recipe.get("name"),
        "gate": {key: gate[key] for key in ("max_drop", "min_speedup", "max_size", "confidence")},
        "threads": report["optimized"]["threads"],
        "data": {
            key: value for key, value in (report["data"] or {}).items() if key not in ("classes", "broken")
        },
        "environment": report["environment"],
    }
    flat = dict(_texts(params))
    for number, entry in enumerate(recipe.get("entries") or (), start=1):
        values = {**entry["parameters"], "recover": entry["recover"], "gate": entry["gate"]}
        flat |= _texts(values, f"{number:02d}.{entry['step']}")
    flat |= {f"step.{step['number']:02d}": f"{step['name']}: {step['outcome']}" for step in report["steps"]}
    shipped, artifacts = report["optimized"], [artifact["path"] for artifact in report["artifacts"]]
    met = {True: "met", False: "missed", None: "not judged"}[gate["met"]]
    return Facts(
        name=folder.name,
        note=f"{sentences.headline(report)}\n\n{sentences.gate(report)}",
        params=flat,
        metrics=tuple(_of_report(report)),
        tags={
            **_tags("optimize"),
            "slimcv.gate": met if gate["decided"] is not False else f"{met}, not decided",
            "slimcv.runtime": f"{shipped['runtime']} {shipped['precision']}",
        },
        files={name: folder / name for name in (*_OF_RUN, *artifacts) if (folder / name).is_file()},
        texts={"recipe.yaml": recipe["text"]} if recipe.get("text") else {},
        sha256=_sha256(text),
    )


def of_ladder(folder: Path) -> Facts:
    """What `slimcv ladder` left in `folder`; the step of a figure is the row's number."""
    text = (folder / "ladder.json").read_text("utf-8")
    ladder = json.loads(text)
    keys = ("model", "data", "epochs", "seed", "threads", "train_threads", "environment")
    params = dict(_texts({key: ladder[key] for key in keys}))
    params |= {f"row.{number:02d}": row["name"] for number, row in enumerate(ladder["rows"])}
    names = {name: folder / name for name in _OF_LADDER if (folder / name).is_file()}
    recipes = {f"recipes/{path.name}": path for path in sorted((folder / "recipes").glob("*.yaml"))}
    metrics = [
        metric
        for number, row in enumerate(ladder["rows"])
        for part in ("measurement", "training", "ratios")
        for metric in _numbers(row[part] or {}, part, step=number)
    ]
    return Facts(
        name=folder.name,
        note=f"{ladder['model']['name']}, row upon row: {', '.join(row['title'] for row in ladder['rows'])}",
        params=params,
        metrics=(*metrics, Metric("seconds", ladder["seconds"])),
        tags=_tags("ladder"),
        files={**names, **recipes},
        texts={},
        sha256=_sha256(text),
    )


def of_bench(document: Mapping[str, Any]) -> Facts:
    """What `slimcv bench --format json` prints; the step of a figure is the row's number."""
    from slimcv.report import as_json
    from slimcv.report.bench import render_bench
    from slimcv.report.html import render_html
    from slimcv.report.reading import of

    text = as_json(document)
    rows = document["rows"]
    params = dict(_texts({"mode": document["mode"], "environment": document["environment"]}))
    for number, row in enumerate(rows):
        told = {key: row[key] for key in ("name", "runtime", "precision", "threads", "batch", "problem")}
        params |= _texts(told, f"row.{number:02d}")
    return Facts(
        name=f"bench {rows[0]['name']}" if rows else "bench",
        note=render_bench(document, "markdown"),
        params=params,
        metrics=tuple(
            metric for number, row in enumerate(rows) for metric in _numbers(row, "row", step=number)
        ),
        tags=_tags("bench"),
        files={},
        texts={"bench.json": text, "report.html": render_html([of(dict(document), Path("bench"))])},
        sha256=_sha256(text),
    )


def _of_report(report: Mapping[str, Any]) -> Iterator[Metric]:
    """The final figures, those of every step under the step's number, and the curves of every training."""
    for part in ("original", "optimized", "ratios", "original_default_allocator", "best_unmodified"):
        yield from _numbers(report[part] or {}, part)
    yield Metric("seconds", report["seconds"])
    seen: list[Any] = []
    for step in report["steps"]:
        number = step["number"]
        yield Metric("step.seconds", step["seconds"], number)
        yield Metric("step.accepted", float(step["outcome"] == "accepted"), number)
        yield from _numbers(step["measurement"] or {}, "step", step=number)
        history = ((step["details"].get("variant") or {}).get("finetune") or {}).get("history")
        if history and history not in seen:  # What came out of a training carries its history on.
            seen.append(history)
            for epoch in history:
                known = {key: epoch.get(key) for key in _CURVES}
                yield from _numbers(known, f"training.{number:02d}.{step['name']}", step=epoch["number"])


def _numbers(values: Mapping[str, Any], prefix: str, *, step: int = 0) -> Iterator[Metric]:
    """Every finite number in `values` and the mappings within; what was not measured is left out."""
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _numbers(value, f"{prefix}.{key}", step=step)
        elif isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
            yield Metric(f"{prefix}.{key}", float(value), step)


def _texts(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Every value in `values` and the mappings within as text; None is left out."""
    for key, value in values.items():
        name = f"{prefix}.{key}" if prefix else str(key)
        if isinstance(value, Mapping):
            yield from _texts(value, name)
        elif value is not None:
            yield name, value if isinstance(value, str) else json.dumps(value)


def _tags(command: str) -> dict[str, str]:
    return {"slimcv.command": command, "slimcv.version": __version__}


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
