"""The trainings of a run in sentences: what the teacher cost, and what was otherwise than asked for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from slimcv.report import figures


def of(
    steps: Sequence[Mapping[str, Any]],
) -> Iterator[tuple[Mapping[str, Any], Mapping[str, Any]]]:
    """Each training once, with the step it belongs to: later steps carry what came out of it on."""
    seen: list[Any] = []
    for step in steps:
        finetuned = (step["details"].get("variant") or {}).get("finetune")
        if finetuned and finetuned.get("history") and finetuned["history"] not in seen:
            seen.append(finetuned["history"])
            yield step, finetuned


def lines(report: Mapping[str, Any]) -> list[str]:
    """A sentence for each training; none for runs of a version that did not keep what the teacher cost."""
    found = []
    for step, finetuned in of(report["steps"]):
        words = [*teacher(finetuned), *finetuned.get("remarks", ())]
        if words:
            found.append(f"training in step {step['number']}, {step['name']}: {'; '.join(words)}")
    return found


def teacher(finetuned: Mapping[str, Any]) -> list[str]:
    """What ran the teacher, and what it took of the training; empty where that was not kept."""
    if "teacher_share" not in finetuned:
        return []
    how = finetuned["teacher"]
    if how is None:
        return ["learnt from the labels alone, without a teacher"]
    if not finetuned["teacher_seconds"]:
        return ["the teacher cost nothing, its outputs were on disk"]
    asked = {"cached": "asked once beforehand", "live": "asked in every step"}[how]
    return [
        f"the teacher ({finetuned['teacher_form']}, {asked}) took "
        f"{figures.duration(finetuned['teacher_seconds'])}, {figures.share(finetuned['teacher_share'])} of "
        "the training"
    ]
