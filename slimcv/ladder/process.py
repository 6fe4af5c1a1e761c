"""The parent's side of a row's process: start it, wait for its answer, never leave it behind."""

from __future__ import annotations

import json
import logging
import signal
import subprocess
import sys
from typing import Any

from slimcv.errors import SlimcvError
from slimcv.ladder.job import Job

log = logging.getLogger("slimcv")


def ask(job: Job) -> dict[str, Any]:
    """What a new process answers to `job`. Raises SlimcvError for its errors and where it dies."""
    with subprocess.Popen(
        # -P: a file called torch.py in the user's working directory must not be taken for the library.
        [sys.executable, "-P", "-m", "slimcv.ladder.worker"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            answer = _exchange(process, json.dumps(job.as_json()))
            code = 0 if answer else process.wait()
        finally:
            process.kill()
    if not answer:
        raise _death(job, code)
    if "error" in answer:
        raise SlimcvError(answer["error"], answer["hint"])
    return answer


def _exchange(process: subprocess.Popen[str], line: str) -> dict[str, Any]:
    """The answer, after the process's log lines; nothing where the process is gone."""
    if process.stdin is None or process.stdout is None:
        return {}
    try:
        process.stdin.write(line + "\n")
        process.stdin.flush()
    except BrokenPipeError:
        return {}
    for told in process.stdout:
        message: dict[str, Any] = json.loads(told)
        if "log" not in message:
            return message
        log.log(message["log"], "%s", message["text"], extra={"live": True} if message["live"] else None)
    return {}


def _death(job: Job, code: int) -> SlimcvError:
    cause = f"code {code}"
    if code < 0:
        cause = signal.Signals(-code).name
        cause += ", probably out of memory" if code == -signal.SIGKILL else ""
    return SlimcvError(
        f"the process for the row '{job.name}' ended at '{job.do}' with {cause}",
        "the same command, without --overwrite, goes on at this row; --rows leaves rows out",
    )
