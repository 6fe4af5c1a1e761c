"""The parent's side of a worker process: start it, ask it, and never leave it behind."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self

from slimcv.errors import SlimcvError

if TYPE_CHECKING:
    from slimcv.step import InputSpec

PATIENCE_SECONDS = 900.0
"""No answer takes this long: compiling a large network takes minutes, a round of slow calls about as many."""

_SECONDS_TO_END = 5.0
_EXCEPTION = re.compile(r"[\w.]+: ")


@dataclass(frozen=True)
class Contender:
    """A file, what runs it, with how many threads, what it is fed, and whether the allocator is tuned."""

    path: Path
    runtime: str
    threads: int
    input: InputSpec
    allocator: Literal["tuned", "default"] = "tuned"


class ContenderFailed(SlimcvError):  # noqa: N818 -- reads as a fact about the contender
    """A contender could not be loaded, its process died or did not answer; `contender` is its name."""

    def __init__(self, contender: str, message: str, hint: str) -> None:
        super().__init__(message, hint)
        self.contender = contender


class WorkerProcess:
    """One contender in a process of its own; a context manager that ends the process whatever happens.

    Commands can be posted without waiting for their answers, so that several workers start at the same time.
    A worker that takes more than `patience_seconds` for an answer is killed.
    """

    def __init__(
        self, name: str, contender: Contender, *, patience_seconds: float = PATIENCE_SECONDS
    ) -> None:
        self.name = name
        self.contender = contender
        self.patience_seconds = patience_seconds
        self._hung = threading.Event()
        self._log = tempfile.TemporaryFile("w+", prefix="slimcv-worker-", errors="replace")  # noqa: SIM115
        self._process = subprocess.Popen(
            # -P: a file called torch.py in the user's working directory must not be taken for the library.
            [sys.executable, "-P", "-m", "slimcv.measure.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            env=_environment(contender.threads),
        )
        self._expected: deque[str] = deque()

    @property
    def pid(self) -> int:
        """The process's number."""
        return self._process.pid

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def post(self, do: str, **arguments: object) -> None:
        """Send a command; its answer is taken with `answer`, in the order of the commands."""
        pipe = self._process.stdin
        if pipe is None:
            raise self._failure()
        try:
            pipe.write(json.dumps({"do": do, **arguments}) + "\n")
            pipe.flush()
        except (BrokenPipeError, ValueError) as error:
            raise self._failure() from error
        self._expected.append(do)

    def post_start(self) -> None:
        """Let the process import its contender's runtime while others do the same."""
        contender = self.contender
        self.post(
            "start", runtime=contender.runtime, threads=contender.threads, allocator=contender.allocator
        )

    def post_load(self, *, seed: int) -> None:
        """Let it load its contender's file; `seed` is that of the pictures it will be asked about."""
        contender = self.contender
        self.post("load", path=str(contender.path), shape=list(contender.input.shape), seed=seed)

    def answer(self) -> dict[str, Any]:
        """The answer to the oldest command not yet answered. Raises ContenderFailed."""
        pipe = self._process.stdout
        limit = threading.Timer(self.patience_seconds, self._kill)
        limit.daemon = True
        limit.start()
        try:
            line = pipe.readline() if pipe is not None else ""
        finally:
            limit.cancel()
        if not line.endswith("\n"):
            raise self._failure()
        self._expected.popleft()
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise ContenderFailed(self.name, f"{self.name}: {answer['error']}", answer["hint"])
        return answer

    def answers(self) -> list[dict[str, Any]]:
        """The answers to all commands posted so far."""
        return [self.answer() for _ in range(len(self._expected))]

    def ask(self, do: str, **arguments: object) -> dict[str, Any]:
        """Send a command and wait for its answer."""
        self.post(do, **arguments)
        return self.answer()

    def close(self) -> None:
        """End the process and wait for it."""
        self._process.terminate()
        self._wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()
        self._log.close()

    def _kill(self) -> None:
        """End a process that does not answer, which ends the wait for its answer too."""
        self._hung.set()
        self._process.kill()

    def _wait(self) -> int:
        """The exit code, once the process has ended; it is killed if it takes too long."""
        try:
            return self._process.wait(_SECONDS_TO_END)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()

    def _failure(self) -> ContenderFailed:
        """Why the process is gone: the signal that ended it, or the last line it wrote."""
        code = self._wait()
        doing = self._expected[0] if self._expected else "start"
        what = f"the process that runs {self.name} ({self.contender.runtime})"
        if self._hung.is_set():
            return ContenderFailed(
                self.name,
                f"{what} gave no answer to '{doing}' within {self.patience_seconds:g} seconds and was ended",
                "try another runtime, or a machine that is less busy",
            )
        self._log.seek(0)
        lines = [line.rstrip() for line in self._log if line.strip()]
        # A message may have several lines; the one that names the exception says what it is about.
        faults = [line for line in lines if _EXCEPTION.match(line)] or lines
        reason = faults[-1].strip() if faults and code >= 0 else _cause(code)
        return ContenderFailed(
            self.name,
            f"{what} died at '{doing}': {reason}",
            "run it alone, with fewer threads or another runtime",
        )


def _environment(threads: int) -> dict[str, str]:
    """The parent's, with every pool of threads that a library opens limited to what is measured.

    GOMP_SPINCOUNT is the command line's own choice for training; a model is timed as its user would run it.
    """
    pools = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    inherited = {name: value for name, value in os.environ.items() if name != "GOMP_SPINCOUNT"}
    return {**inherited, **dict.fromkeys(pools, str(threads)), "PYTHONUNBUFFERED": "1"}


def _cause(code: int) -> str:
    if code >= 0:
        return f"it ended with code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    return f"{name}, probably out of memory" if name == "SIGKILL" else name
