"""The page of a profiled training: what a step is made of."""

from __future__ import annotations

from slimcv.report import figures
from slimcv.report.charts import rows, scale
from slimcv.report.html import repeating
from slimcv.report.html.parts import Block, Cell, Chart, Note, Page, Sections, Table, Tile, plain
from slimcv.report.profile_training import tables, totals
from slimcv.report.reading import Finished


def page(found: Finished) -> Page:
    """The parts of a step, advice, and what was tried."""
    training = found.document["training"]
    axis = scale.linear([part["ms"] for part in training["parts"]], zero=True)
    marks = [
        (
            part["name"],
            "",
            f"{figures.milliseconds(part['ms'])}, {figures.share(part['share'])}",
            rows.bar(axis, 0.0, part["ms"], "after"),
        )
        for part in training["parts"]
    ]
    lines = tuple(
        (
            Cell(part["name"]),
            Cell(figures.milliseconds(part["ms"]), part["ms"]),
            Cell(figures.share(part["share"]), part["share"]),
            Cell(figures.milliseconds(part["first_ms"]), part["first_ms"]),
        )
        for part in training["parts"]
    )
    chart = Chart(
        "Parts of a step",
        f"Medians of {training['steps']} steps of {training['batch']} pictures.",
        rows.chart(marks, axis, title="ms", tick=lambda value: f"{value:g}"),
        Table("Parts of a step", ("part", "time", "share", "in the first epoch"), lines),
    )
    # The first table is that of the parts, which is drawn above.
    others: list[Block] = [plain(headings[0], headings, body) for headings, body in tables(training)[1:]]
    advice: list[Block] = [Note(one["text"]) for one in training["advice"]] or [Note("Nothing stands out.")]
    sections = Sections()
    sections.add("parts", "What a step is made of", [chart])
    sections.add(
        "advice", "What to change", [*advice, *(Note(remark, "quiet") for remark in training["remarks"])]
    )
    sections.add("tried", "What else was measured", others)
    sections.add("totals", "Totals", [plain("The whole training", ("", "value"), totals(training), left=2)])
    sections.add("repeat", "How to repeat it", repeating.blocks(found.document))
    return Page(
        title=f"{found.name}: a training step",
        lead=(
            f"Input {found.document['model']['input']}, {training['precision']}, "
            f"{training['batch']} pictures a step."
        ),
        tiles=(
            Tile(f"{figures.significant(training['images_per_second'])} images/s", "training"),
            Tile(figures.duration(training["epoch_seconds"]), "an epoch"),
        ),
        sections=tuple(sections.found),
    )
