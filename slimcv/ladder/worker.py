"""A process that works on one row: `python -m slimcv.ladder.worker`, a Job on stdin, its answer on stdout.

Before the answer come lines of the log, as `{"log": level, "text", "live"}`. A SlimcvError is answered as
`{"error", "hint"}`; any other fault ends the process, with its traceback on stderr. It ends with its parent:
what keeps stdin open is the parent alone.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
import threading
from dataclasses import asdict
from typing import Any, TextIO

from slimcv.errors import SlimcvError
from slimcv.ladder.job import Job


def work(job: Job) -> dict[str, Any]:
    """The row's `Trained` or `Served` as JSON."""
    import torch

    torch.set_num_threads(job.train_threads)
    try:
        if job.do == "train":
            from slimcv.ladder.training import train

            return asdict(train(job))
        from slimcv.ladder.predicting import predict

        return asdict(predict(job))
    except SlimcvError as error:
        return {"error": error.message, "hint": error.hint}


class _Forwarding(logging.Handler):
    """Hands each record to the parent, which shows it as it shows its own."""

    def __init__(self, answers: TextIO) -> None:
        super().__init__()
        self._answers = answers

    def emit(self, record: logging.LogRecord) -> None:
        """One line of JSON."""
        line = {"log": record.levelno, "text": record.getMessage(), "live": getattr(record, "live", False)}
        self._answers.write(json.dumps(line) + "\n")
        self._answers.flush()


def _log_to_parent(answers: TextIO, level: int) -> None:
    """Slimcv's own lines, and nothing of what libraries have to say."""
    logger = logging.getLogger("slimcv")
    logger.handlers = [_Forwarding(answers)]
    logger.setLevel(level)
    logger.propagate = False
    logging.captureWarnings(True)
    warnings = logging.getLogger("py.warnings")
    warnings.handlers, warnings.propagate = [logging.NullHandler()], False


def _end_with(parent: TextIO) -> None:
    """Leave as soon as the pipe from the parent ends, however the parent did."""
    parent.read()
    os._exit(1)


def _main() -> None:
    # Ctrl-C reaches the whole group; the parent answers it and ends this process.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    job = Job(**json.loads(sys.stdin.readline()))
    threading.Thread(target=_end_with, args=(sys.stdin,), daemon=True).start()
    _log_to_parent(answers, job.level)
    answers.write(json.dumps(work(job)) + "\n")
    answers.flush()
    os._exit(0)


if __name__ == "__main__":
    _main()
