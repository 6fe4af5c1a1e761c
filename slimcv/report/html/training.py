"""Training curves: what each fine-tuning learnt, epoch by epoch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from slimcv.report import figures, trainings
from slimcv.report.charts import plane, scale
from slimcv.report.charts.plane import Line
from slimcv.report.html.parts import Block, Cell, Chart, Note, Table

_CURVES = (
    ("tuning_top1", "tuning", "tuning split, never trained on"),
    ("averaged_top1", "averaged", "tuning split, weights averaged"),
    ("train_top1", "train", "training pictures"),
)


def blocks(report: Mapping[str, Any]) -> list[Block]:
    """A chart for each training of the run."""
    charts = [
        _chart(step, finetuned)
        for step, finetuned in trainings.of(report["steps"])
        if len(finetuned["history"]) > 1
    ]
    notes = [Note(f"{line[:1].upper()}{line[1:]}.") for line in trainings.lines(report)]
    return [*charts, *notes]


def _chart(step: Mapping[str, Any], finetuned: Mapping[str, Any]) -> Chart:
    history = finetuned["history"]
    curves = [
        (key, kind, name)
        for key, kind, name in _CURVES
        if sum(epoch.get(key) is not None for epoch in history) > 1
    ]
    values = [epoch[key] for key, _, _ in curves for epoch in history if epoch.get(key) is not None]
    numbers = [float(epoch["number"]) for epoch in history]
    x, y = scale.linear(numbers, zero=True), scale.linear(values)
    lines = [
        Line(tuple((epoch["number"], epoch[key]) for epoch in history if epoch.get(key) is not None), kind)
        for key, kind, _ in curves
    ]
    best = finetuned.get("best")
    bounds = [plane.Bound(float(best), f"kept: epoch {best}", across=True)] if best else []
    drawn = plane.chart(
        x,
        y,
        lines=lines,
        bounds=bounds,
        x_tick=lambda value: f"{value:g}",
        y_tick=lambda value: f"{value:g} %",
    )
    told = (
        f"{finetuned['epochs']} epochs of {figures.duration(finetuned['seconds_per_epoch'])}, "
        f"batch {finetuned['batch']}, {finetuned['precision']}; stopped: {finetuned['stopped']}."
    )
    return Chart(
        f"Step {step['number']}, {step['name']}",
        told,
        drawn,
        _table(step, history),
        key=tuple((kind, name) for _, kind, name in curves),
        axes=("epoch", "top-1"),
    )


def _table(step: Mapping[str, Any], history: Sequence[Mapping[str, Any]]) -> Table:
    rows = tuple(
        (
            Cell(str(epoch["number"]), epoch["number"]),
            *(Cell(figures.percent(epoch.get(key)), epoch.get(key)) for key, _, _ in _CURVES),
            Cell(_loss(epoch.get("loss")), epoch.get("loss")),
            Cell(_loss(epoch.get("tuning_loss")), epoch.get("tuning_loss")),
            Cell(f"{epoch['lr']:.2g}", epoch["lr"]),
            Cell(figures.duration(epoch["seconds"]), epoch["seconds"]),
        )
        for epoch in history
    )
    headings = ("epoch", "tuning", "averaged", "training", "loss", "tuning loss", "learning rate", "took")
    return Table(f"The epochs of step {step['number']}; top-1 in percent", headings, rows, frozenset())


def _loss(value: float | None) -> str:
    return figures.NOT_MEASURED if value is None else figures.significant(value)
