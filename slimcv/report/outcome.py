"""From the records of a finished session to its report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from slimcv.report.document import build
from slimcv.results import Artifact, Measurement, Record

if TYPE_CHECKING:
    from slimcv.data import Dataset
    from slimcv.packed import Compared
    from slimcv.recipe import Recipe
    from slimcv.step import Context, InputSpec


def from_records(
    records: Sequence[Record],
    *,
    recipe: Recipe,
    context: Context,
    model: str,
    arch: str | None,
    data: str | None,
    command: Sequence[str],
    sha256: str | None = None,
    packing: Compared | Mapping[str, Any] | str | None = None,
) -> dict[str, Any]:
    """The report of a session that ended: `records` as the session yielded them, the last one of step `ship`.

    `model`, `arch` and `data` are what the user named, `command` the command line, `sha256` the hash of the
    model's file, where it is one; `packing` what slimcv.packed.compared found or says.
    """
    shipped = records[-1]
    details = shipped.details
    if shipped.measurement is None or shipped.before is None:
        raise ValueError("the session has not shipped anything")
    spec = context.teacher.input
    return build(
        model={
            "source": model,
            "sha256": sha256,
            "arch": arch,
            "classes": context.teacher.classes,
            **_input(spec),
        },
        recipe={
            "name": recipe.name,
            "text": recipe.text,
            "overrides": recipe.overrides,
            "plan": recipe.plan(),
            "entries": recipe.as_json(),
        },
        environment=details["environment"],
        gate={
            **recipe.gate.model_dump(),
            "met": details["gate_met"],
            "decided": details.get("gate_decided"),
            "undecided": details.get("undecided"),
            "not_as_asked": details.get("not_as_asked"),
            "bounds": details.get("bounds"),
            "pictures_needed": details.get("pictures_needed"),
        },
        original=shipped.before,
        optimized=shipped.measurement,
        records=records,
        artifacts=[Artifact(**values) for values in details["artifacts"]],
        seconds=sum(record.seconds for record in records),
        original_default_allocator=Measurement.from_json(details["original_default_allocator"]),
        best_unmodified=Measurement.from_json(details["best_unmodified"]),
        intervals=details.get("intervals"),
        data=_pictures(context.data, data),
        command=command,
        packing=packing,
    )


def _input(spec: InputSpec) -> dict[str, Any]:
    return {"input": str(spec), "mean": spec.mean, "std": spec.std}


def _pictures(dataset: Dataset | None, source: str | None) -> dict[str, Any] | None:
    if dataset is None:
        return None
    return {
        "source": source,
        "fingerprint": dataset.fingerprint,
        "classes": dataset.classes,
        "train": len(dataset.train),
        "tuning": len(dataset.tuning),
        "val": len(dataset.val),
        "broken": [{"path": broken.path, "reason": broken.reason} for broken in dataset.broken],
    }
