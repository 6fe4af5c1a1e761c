"""The lesson's table for scenenet: each technique on top of the one before, with all cores.

Runs `slimcv ladder` as a user would and prints JSON: how many times less an epoch and a prediction take in
the last row than in the first, what that costs in accuracy, the parameters of each row, which rows are slower
than the one above them and whether the table says so. The folder is kept: the same command goes on where it
stopped.
"""

import argparse
import json
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

from reference import RESULTS, called, networks, print_row

LESSON = [7_476_742, 5_873_478, 679_137, 679_137, 679_137, 679_137]
"""Parameters with float buffers, row by row."""

TIMES_LESS_PER_EPOCH, TIMES_LOWER_LATENCY, MOST_POINTS_LOST = 5.0, 8.0, 1.0


def climbed(out: Path, *options: str) -> dict[str, Any]:
    """What `slimcv ladder` says about scenenet."""
    command = called("ladder", networks()["scenenet"], out, *options)
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        sys.exit(f"slimcv ladder ended with {done.returncode}")
    return dict(json.loads(done.stdout))


def slower(rows: list[dict[str, Any]]) -> tuple[dict[str, list[str]], list[str]]:
    """What the table marks as slower than the row above, and the rows it ought to have marked as well."""
    marked = {row["title"]: row["slower"] for row in rows if row["slower"]}
    unmarked = []
    for above, row in pairwise(rows):
        before, after = above["measurement"], row["measurement"]
        latency = after["latency_ms"]["p50"] > before["latency_ms"]["p50"]
        training = after["train_seconds_per_epoch"] > before["train_seconds_per_epoch"]
        told = " ".join(row["slower"])
        if (latency and "latency" not in told) or (training and "training" not in told):
            unmarked.append(row["title"])
    return marked, unmarked


def main() -> None:
    """One row of the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--overwrite", action="store_true", help="start anew")
    chosen = parser.parse_args()
    options = ["--epochs", str(chosen.epochs), *(["--overwrite"] if chosen.overwrite else [])]
    document = climbed(RESULTS / "ladder" / "scenenet", *options)
    rows = document["rows"]
    first, last = rows[0]["measurement"], rows[-1]["measurement"]
    counted = [row["measurement"]["parameters"] + row["measurement"]["buffers"] for row in rows]
    marked, unmarked = slower(rows)
    per_epoch = first["train_seconds_per_epoch"] / last["train_seconds_per_epoch"]
    latency = first["latency_ms"]["p50"] / last["latency_ms"]["p50"]
    lost = first["top1"] - last["top1"]
    print_row(
        {
            "benchmark": "ladder scenenet",
            "threads": document["threads"],
            "train_threads": document["train_threads"],
            "epochs": document["epochs"],
            "parameters_with_buffers": counted,
            "parameters_as_in_the_lesson": counted == LESSON,
            "seconds_per_epoch": [row["measurement"]["train_seconds_per_epoch"] for row in rows],
            "times_less_per_epoch": per_epoch,
            "latency_ms": [row["measurement"]["latency_ms"]["p50"] for row in rows],
            "times_lower_latency": latency,
            "top1": [row["measurement"]["top1"] for row in rows],
            "points_lost": lost,
            "slower_than_the_row_above": marked,
            "slower_but_not_marked": unmarked,
            "met": {
                "time_per_epoch": per_epoch >= TIMES_LESS_PER_EPOCH,
                "latency": latency >= TIMES_LOWER_LATENCY,
                "accuracy": lost <= MOST_POINTS_LOST,
                "slower_rows_marked": not unmarked,
            },
            "seconds": document["seconds"],
        }
    )


if __name__ == "__main__":
    main()
