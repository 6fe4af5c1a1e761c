"""What each technique gives on top of those before it: one row after the other, then all against each other.

Every row starts from the original's weights, carried over by the surgery of the rows up to it, and is trained
for the same number of epochs in the same order from the same seed, taught by the original: rows with the same
surgery differ in how they are trained and run, and in nothing else. No row profits from another's training.
Training and predicting have processes of their own, so that memory is each row's own; latency is measured of
all rows in turns at the end.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from slimcv.errors import SlimcvError
from slimcv.ladder.job import Job, Served, Trained
from slimcv.ladder.process import ask
from slimcv.ladder.rows import Row
from slimcv.measure import environment, latency
from slimcv.results import Measurement, Record

if TYPE_CHECKING:
    from slimcv.run import Run
    from slimcv.step import Context

__all__ = ["MEASURED", "Pictures", "climb", "measured_rows", "write_recipes"]

MEASURED = "ladder"
"""Step of the last record, whose details hold the latencies and memory of all rows."""

SAMPLES = 100
"""Calls timed of each row: enough for a 99th percentile."""

log = logging.getLogger("slimcv")


@dataclass(frozen=True)
class Pictures:
    """What each row's process loads again: see slimcv.data.load."""

    source: str
    cache: Path | None = None
    cache_limit: int | None = None
    keep: bool = True


def write_recipes(rows: Sequence[Row], folder: Path) -> None:
    """Each row's recipe as `recipes/<row>.yaml` below `folder`, for `slimcv optimize --recipe` too."""
    (folder / "recipes").mkdir(exist_ok=True)
    for earlier in (folder / "recipes").glob("*.yaml"):
        earlier.unlink()
    for row in rows:
        if row.recipe is not None:
            (folder / "recipes" / f"{row.name}.yaml").write_text(row.recipe, "utf-8")


def climb(rows: Sequence[Row], context: Context, run: Run, *, pictures: Pictures) -> Iterator[Record]:
    """A record for each row as it is trained and asked about val/, then one with what all were timed at.

    `context.teacher` is the original. A row's record has the outcome `measured`, or `skipped` where its
    technique has nothing to change on this network; its `details` hold `title`, `notes`, `training` (see
    Trained) and `file`. Records of an interrupted ladder are yielded again before new work starts. Raises
    SlimcvError where a row's process fails.
    """
    write_recipes(rows, run.folder)
    if run.find_checkpoint(0, rows[0].name) is None:
        run.save_checkpoint(0, rows[0].name, context.teacher)
    records: list[Record] = []
    for number, row in enumerate(rows):
        record = run.replay()
        if record is None:
            log.info("row %d of %d: %s", number + 1, len(rows), row.title)
            above = next((r.checkpoint for r in reversed(records) if r.checkpoint is not None), None)
            record = _measured(number, row, context, run, pictures=pictures, above=above)
            record = run.commit(record)
        records.append(record)
        yield record
    last = run.replay()
    if last is None:
        last = run.commit(_timed(records, context, run))
    yield last


def _measured(
    number: int, row: Row, context: Context, run: Run, *, pictures: Pictures, above: str | None
) -> Record:
    """Train the row, then predict with it. What training came to is remembered between the two."""
    begun = time.perf_counter()
    job = Job(
        do="train",
        number=number,
        name=row.name,
        folder=str(run.folder),
        data=pictures.source,
        cache=None if pictures.cache is None else str(pictures.cache),
        cache_limit=pictures.cache_limit,
        keep=pictures.keep,
        seed=context.seed,
        threads=context.threads,
        train_threads=context.train_threads,
        recipe=None if row.recipe is None else str(run.folder / "recipes" / f"{row.name}.yaml"),
        training=row.training,
        read_only=row.read_only,
        precision=row.precision,
        above=above if row.takes_weights_above else None,
        level=log.getEffectiveLevel(),
    )
    kept = run.recall(f"row-{number}")
    if kept is None:
        kept = ask(job)
        run.remember(f"row-{number}", kept)
    trained = Trained(**kept)
    details: dict[str, Any] = {"title": row.title, "recipe": row.recipe, "training": asdict(trained)}
    record = Record(number, -1, row.name, "skipped", "", 0.0, details=details)
    notes = [*row.notes, *trained.notes]
    if trained.checkpoint is not None:
        log.info("%s: predicting", row.title)
        served = Served(**ask(replace(job, do="predict", network=trained.checkpoint)))
        notes += served.notes
        measurement = replace(
            Measurement.from_json(served.measurement), train_seconds_per_epoch=trained.seconds_per_epoch
        )
        record = replace(
            record,
            outcome="measured",
            measurement=measurement,
            checkpoint=trained.checkpoint,
            details={**details, "file": served.file},
        )
    return replace(
        record,
        reason="; ".join(notes),
        details={**record.details, "notes": notes},
        seconds=time.perf_counter() - begun,
    )


def _timed(records: Sequence[Record], context: Context, run: Run) -> Record:
    """Latency and peak memory of every row, all in one interleaved measurement.

    A row that cannot be timed is left out, and `details["untimed"]` says why; `details["slower"]` names the
    rows slower than the one above by more than the measured spread.
    """
    begun = time.perf_counter()
    log.info("timing all rows in turns")
    contenders = {
        record.step: latency.Contender(
            run.folder / record.details["file"],
            record.measurement.runtime,
            context.threads,
            context.teacher.input,
        )
        for record in records
        if record.measurement is not None
    }
    untimed: dict[str, str] = {}
    while True:
        try:
            timings = latency.interleaved(contenders, samples=SAMPLES, memory=True)
            break
        except latency.ContenderFailed as error:
            if error.contender == records[0].step:
                raise
            log.warning("not timed: %s", error.message)
            untimed[error.contender] = error.message
            del contenders[error.contender]
    slower = [name for above, name in pairwise(timings) if latency.faster(timings[name], timings[above])]
    found = {
        name: {
            "latency_ms": asdict(timing.latency),
            "peak_rss_bytes": timing.peak_rss_bytes,
            "precision": timing.precision,
            "ratio": asdict(latency.ratio(timings[records[0].step], timing)),
        }
        for name, timing in timings.items()
    }
    return Record(
        len(records),
        -1,
        MEASURED,
        "measured",
        "",
        time.perf_counter() - begun,
        details={
            "timings": found,
            "slower": slower,
            "untimed": untimed,
            "environment": environment.describe().as_json(),
        },
    )


def measured_rows(records: Sequence[Record]) -> list[Record]:
    """The rows' records with what the last one timed put into their measurements.

    Raises SlimcvError where the ladder did not come to its end.
    """
    *rows, last = records
    if last.step != MEASURED:
        raise SlimcvError("the ladder has not been climbed to its end", "run the same command again")
    timings, untimed = last.details["timings"], last.details["untimed"]
    whole = []
    for record in rows:
        timing = timings.get(record.step)
        if record.measurement is not None and timing is not None:
            known = Measurement.from_json({**record.measurement.as_json(), **timing})
            beyond = record.step in last.details["slower"]
            told = {"slower_beyond_spread": beyond, "latency_ratio": timing.get("ratio")}
            record = replace(record, measurement=known, details={**record.details, **told})
        if record.step in untimed:
            notes = [*record.details["notes"], f"not timed: {untimed[record.step]}"]
            record = replace(record, details={**record.details, "notes": notes})
        whole.append(record)
    return whole
