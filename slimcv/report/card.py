"""MODEL_CARD.md: what the folder holds, how it was measured, how to use it, as a Hugging Face model card."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml

from slimcv.quoting import cell, fenced, one_line
from slimcv.report import sentences
from slimcv.report.markdown import before_after, facts, ways

_USE = """\
slimcv predict . pictures/
slimcv verify .
"""

_PYTHON = """\
import slimcv

predict = slimcv.load(".").predict
print(predict("picture.jpg").label)
"""


def render_card(report: Mapping[str, Any], *, license: str | None = None) -> str:
    """The card of a bundle from its report; `license` is that of the model that was optimised."""
    model, serve = report["model"], report["optimized"]
    name = cell(model.get("name") or model.get("source") or "model")
    sections = [
        f"---\n{yaml.safe_dump(_metadata(report, license), sort_keys=False, allow_unicode=True)}---",
        f"# {name}, optimised for CPUs",
        f"**{cell(sentences.headline(report))}**",
        f"Runs in {serve['runtime']}, {serve['precision']}. {cell(sentences.gate(report))}.",
        "## Use",
        fenced(_USE, "sh"),
        fenced(_PYTHON, "python"),
        "Pictures are resized with an antialiased bilinear filter that keeps nothing of the aspect ratio. "
        "Their size, normalisation, the classes and hashes of all files are in `slimcv.json`.",
        "## Before and after",
        before_after(report),
        cell(sentences.method(report)),
        *ways(report),
        "## Data",
        facts(report["data"]) if report["data"] else sentences.no_data(report),
        "## Measured on",
        facts(report["environment"]),
        "## Licence",
        cell(license) if license else "That of the original model, which was not stated.",
    ]
    return "\n\n".join(sections) + "\n"


def _metadata(report: Mapping[str, Any], license: str | None) -> dict[str, Any]:
    """The card's front matter (huggingface.co/docs/hub/model-cards), which a line of dashes ends."""
    serve, data = report["optimized"], report["data"]
    metadata: dict[str, Any] = {
        **({"license": one_line(license)} if license else {}),
        "library_name": "slimcv",
        "pipeline_tag": "image-classification",
        "tags": ["image-classification", "cpu", serve["runtime"], serve["precision"]],
    }
    if data and serve["top1"] is not None:
        source = one_line(data["source"]).rstrip("/").rpartition("/")[2] or "pictures"
        result = {
            "task": {"type": "image-classification"},
            "dataset": {"name": source, "type": "imagefolder", "split": "validation"},
            "metrics": [{"type": "accuracy", "value": round(serve["top1"] / 100, 4)}],
        }
        name = one_line(report["model"].get("name") or report["model"].get("source") or "model")
        metadata["model-index"] = [{"name": name, "results": [result]}]
    return metadata
