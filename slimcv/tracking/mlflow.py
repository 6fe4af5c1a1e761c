"""A finished command as a run in MLflow."""

from __future__ import annotations

import io
import logging
import os
import re
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

    from slimcv.tracking.facts import Facts

EXPERIMENT = "slimcv"
"""Where runs go, unless MLFLOW_EXPERIMENT_NAME names another experiment."""

DIGEST = "slimcv.report_sha256"
"""The tag that a run gets last: with it everything is logged, and needs not be logged again."""

_SETTINGS = {
    "MLFLOW_ALLOW_FILE_STORE": "true",  # A folder is refused otherwise; one that was named is meant.
    "MLFLOW_DISABLE_TELEMETRY": "true",  # Nobody asked for that.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",  # Not seven, each twice as long after the one before.
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    "MLFLOW_LOGGING_LEVEL": "ERROR",
}
"""What MLflow reads from the environment, where the user has not said otherwise."""

_PARAMS, _METRICS = 100, 1000
"""The most of each that a server takes at once (MLflow's REST API, log-batch)."""

_LONGEST_PARAM, _LONGEST_KEY = 500, 250
"""Letters of a parameter that servers of all versions take, and of a key."""

_Item = TypeVar("_Item")


def log_run(facts: Facts, uri: str) -> str:
    """Log `facts` as a run; its id, that of an earlier one where the same was logged before.

    Raises what MLflow and its stores raise; a run that was begun is marked as failed then.
    """
    with _quiet():
        from mlflow.entities import Metric, Param, RunTag
        from mlflow.tracking import MlflowClient

        client = MlflowClient(tracking_uri=uri)
        experiment = _experiment(client)
        known = client.search_runs([experiment], f"tags.`{DIGEST}` = '{facts.sha256}'", max_results=1)
        if known:
            return str(known[0].info.run_id)
        now = int(1000 * time.time())
        tags = {**facts.tags, "mlflow.source.name": "slimcv", "mlflow.note.content": facts.note}
        run_id = client.create_run(experiment, run_name=facts.name, tags=tags).info.run_id
        try:
            params = [Param(_key(key), value[:_LONGEST_PARAM]) for key, value in facts.params.items()]
            metrics = [Metric(_key(one.key), one.value, now, one.step) for one in facts.metrics]
            for some in _batches(params, _PARAMS):
                client.log_batch(run_id, params=some)
            for many in _batches(metrics, _METRICS):
                client.log_batch(run_id, metrics=many)
            for place, path in facts.files.items():
                folder = str(PurePosixPath(place).parent)
                client.log_artifact(run_id, str(path), None if folder == "." else folder)
            for place, text in facts.texts.items():
                client.log_text(run_id, text, place)
            client.log_batch(run_id, tags=[RunTag(DIGEST, facts.sha256)])
        except Exception:
            client.set_terminated(run_id, "FAILED")
            raise
        client.set_terminated(run_id)
    return str(run_id)


def _experiment(client: MlflowClient) -> str:
    name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or EXPERIMENT
    found = client.get_experiment_by_name(name)
    return str(found.experiment_id if found is not None else client.create_experiment(name))


def _key(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9_.\-]", "_", text)[:_LONGEST_KEY]


def _batches(items: Sequence[_Item], most: int) -> Iterator[Sequence[_Item]]:
    return (items[start : start + most] for start in range(0, len(items), most))


@contextmanager
def _quiet() -> Iterator[None]:
    """MLflow set up by its environment variables, without what it prints and its network code logs."""
    for name, value in _SETTINGS.items():
        os.environ.setdefault(name, value)
    network = logging.getLogger("urllib3")
    level = network.level
    network.setLevel(logging.ERROR)
    try:
        with redirect_stdout(io.StringIO()):
            yield
    finally:
        network.setLevel(level)
