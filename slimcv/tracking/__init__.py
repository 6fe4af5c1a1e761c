"""Telling a tracking server what a finished run came to.

The run directory stays the source of truth: what is logged is read from the files that the run wrote, after
it has written them. A server that cannot be reached is warned about once, and costs but its own copy.
"""

from __future__ import annotations

import importlib.util
import logging
import os
from dataclasses import dataclass
from pathlib import Path

from slimcv.errors import SlimcvError, nearest
from slimcv.tracking.facts import Facts, of_bench, of_ladder, of_run

__all__ = ["Facts", "Tracker", "find", "of_bench", "of_ladder", "of_run", "track"]

KINDS = ("mlflow",)
URI_VARIABLE = "MLFLOW_TRACKING_URI"
FOLDER = "mlruns"
"""Where MLflow keeps runs if neither the command line nor the environment says."""

_DATABASES = ("mssql", "mysql", "postgresql", "sqlite")

log = logging.getLogger("slimcv")


@dataclass(frozen=True)
class Tracker:
    """Where to log: `uri` is a server, a database, or a folder as a `file:` URI."""

    uri: str


def find(text: str | None) -> Tracker | None:
    """What `--track` asks for: `mlflow`, or `mlflow:` and a URI or a folder; None for None.

    Raises SlimcvError for another tracker, and where the packages that it takes are not installed.
    """
    if text is None:
        return None
    kind, _, uri = text.partition(":")
    if kind not in KINDS:
        raise SlimcvError(f"--track {text}: there is no tracker '{kind}'", nearest(kind, KINDS))
    if importlib.util.find_spec("mlflow") is None:
        raise SlimcvError("--track mlflow: MLflow is not installed", "pip install 'slimcv[mlflow]'")
    uri = uri or os.environ.get(URI_VARIABLE, "") or FOLDER
    scheme = uri.partition(":")[0].partition("+")[0]
    if scheme in _DATABASES and importlib.util.find_spec("sqlalchemy") is None:
        raise SlimcvError(
            f"--track {text}: MLflow writes to a database only with all of its packages",
            "pip install mlflow, or name a folder or a server",
        )
    if ":" not in uri and not uri.startswith("databricks"):
        uri = Path(uri).absolute().as_uri()
    return Tracker(uri)


def track(tracker: Tracker, facts: Facts) -> None:
    """Log `facts`; a tracker that fails is warned about, and the run is as good as without it."""
    from slimcv.tracking import mlflow

    try:
        found = mlflow.log_run(facts, tracker.uri)
    except Exception as error:  # noqa: BLE001 -- Stores are plug-ins that raise what they like; the run is whole.
        sentence = str(error).strip().splitlines() or [type(error).__name__]
        log.warning(
            "not tracked in %s: %s; what was found is in the run's own files", tracker.uri, sentence[0]
        )
        return
    log.info("tracked in %s as %s", tracker.uri, found)
