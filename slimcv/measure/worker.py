"""A process that runs one contender: `python -m slimcv.measure.worker`, commands in, answers out, as JSON.

Commands on stdin, one object a line, answered on stdout by one object a line in the same order:
`{"do": "start", "runtime", "threads", "allocator"}` imports the runtime → `{"tuned"}`;
`{"do": "baseline"}` runs a tiny model; what is resident then is the runtime's → `{"baseline_bytes"}`;
`{"do": "load", "path", "shape", "seed"}` → `{"load_seconds"}`;
`{"do": "warm", "batch", "calls", "seconds"}` → `{"first_call_ms", "call_ms", "precision"}`;
`{"do": "time", "batch", "calls", "discard"}` → `{"ms": [...]}`;
`{"do": "outputs", "path", "mean", "std"}` runs the uint8 pictures of an `.npy` file one by one → `{"rows"}`;
`{"do": "memory", "batch", "calls"}` → the fields of `Memory`; `{"do": "quit"}` ends it.
A SlimcvError is answered as `{"error", "hint"}`; any other fault ends the process, with its traceback on
stderr. Imports neither torch nor numpy before it is told which runtime to load.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from slimcv import runtimes
from slimcv.errors import SlimcvError
from slimcv.measure import allocator, memory

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_LONGEST_WARM_UP = 20
"""Times the asked duration: after that, a call is taken as it is."""


class Worker:
    """The contender's state between commands."""

    def __init__(self) -> None:
        self._runtime = ""
        self._threads = 1
        self._prepared: runtimes.Prepared | None = None
        self._shape: tuple[int, ...] = ()
        self._seed = 0
        self._baseline_bytes = 0
        self._batches: dict[int, NDArray[np.generic]] = {}

    def answer(self, command: dict[str, Any]) -> dict[str, Any]:
        """Do what a command asks for."""
        arguments = {key: value for key, value in command.items() if key != "do"}
        commands: dict[str, Callable[..., dict[str, Any]]] = {
            "start": self.start,
            "baseline": self.baseline,
            "load": self.load,
            "warm": self.warm,
            "time": self.time,
            "outputs": self.outputs,
            "memory": self.memory,
        }
        result: dict[str, Any] = commands[command["do"]](**arguments)
        return result

    def start(self, *, runtime: str, threads: int, allocator: str) -> dict[str, Any]:
        """Set the allocator before anything large exists, then import the runtime."""
        tuned = _tune() if allocator == "tuned" else False
        self._runtime, self._threads = runtime, threads
        runtimes.import_library(runtime)
        return {"tuned": tuned}

    def baseline(self) -> dict[str, Any]:
        """Memory without a model; to be asked for before one is loaded."""
        runtimes.load_libraries(self._runtime, threads=self._threads)
        self._baseline_bytes = memory.resident()
        return {"baseline_bytes": self._baseline_bytes}

    def load(self, *, path: str, shape: list[int], seed: int) -> dict[str, Any]:
        """Load the model's file; `shape` is that of one picture."""
        self._shape, self._seed = tuple(shape), seed
        memory.reset_peak()
        start = time.perf_counter()
        self._prepared = runtimes.prepare(Path(path), self._runtime, threads=self._threads)
        return {"load_seconds": time.perf_counter() - start}

    def warm(self, *, batch: int, calls: int, seconds: float) -> dict[str, Any]:
        """Call `calls` times at least and for `seconds`, until calls get no faster by more than a tenth."""
        times = [self._call_ms(batch)]
        start = time.perf_counter()
        while len(times) < calls or not _steady(times, time.perf_counter() - start, seconds):
            times.append(self._call_ms(batch))
        recent = times[-max(1, len(times) // 3) :]
        precision = self._loaded().precision
        return {"first_call_ms": times[0], "call_ms": statistics.median(recent), "precision": precision}

    def time(self, *, batch: int, calls: int, discard: int) -> dict[str, Any]:
        """Milliseconds of each of `calls` calls, after `discard` calls that bring the caches back."""
        for _ in range(discard):
            self._call_ms(batch)
        return {"ms": [self._call_ms(batch) for _ in range(calls)]}

    def outputs(self, *, path: str, mean: list[float], std: list[float]) -> dict[str, Any]:
        """The model's outputs for pictures (n, height, width, channels), a row each."""
        import numpy as np

        from slimcv.step import InputSpec

        channels, height, width = self._shape
        spec = InputSpec(channels, height, width, tuple(mean), tuple(std))
        pictures = np.load(path, allow_pickle=False)
        rows = [runtimes.answer(self._loaded(), picture[np.newaxis], spec)[0] for picture in pictures]
        return {"rows": np.asarray(rows).tolist()}

    def memory(self, *, batch: int, calls: int) -> dict[str, Any]:
        """Peaks of resident memory; to be asked for before any larger batch was run."""
        self._call_ms(batch)
        loading_peak = memory.peak()
        memory.reset_peak()
        for _ in range(calls):
            self._call_ms(batch)
        return asdict(memory.Memory(self._baseline_bytes, loading_peak, memory.peak()))

    def _call_ms(self, batch: int) -> float:
        pixels = self._pixels(batch)
        predict = self._loaded().predict
        start = time.perf_counter()
        predict(pixels)
        return 1e3 * (time.perf_counter() - start)

    def _loaded(self) -> runtimes.Prepared:
        if self._prepared is None:
            raise SlimcvError(
                "the worker was asked to predict before it loaded a model", "load a model first"
            )
        return self._prepared

    def _pixels(self, batch: int) -> NDArray[np.generic]:
        """Random pixels, or planes as normalised pictures are: no denormal numbers, which are slow."""
        import numpy as np

        if batch not in self._batches:
            random = np.random.default_rng(self._seed)
            channels, height, width = self._shape
            self._batches[batch] = (
                random.integers(0, 256, (batch, height, width, channels), dtype=np.uint8)
                if self._loaded().input_format == runtimes.PIXELS
                else random.standard_normal((batch, *self._shape), dtype=np.float32)
            )
        return self._batches[batch]


def serve(commands: TextIO, answers: TextIO) -> None:
    """Answer commands until `quit` or the end of the input."""
    worker = Worker()
    for line in commands:
        command = json.loads(line)
        if command["do"] == "quit":
            return
        try:
            answer = worker.answer(command)
        except SlimcvError as error:
            answer = {"error": error.message, "hint": error.hint}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


def _tune() -> bool:
    return allocator.tune()


def _steady(times: list[float], elapsed: float, seconds: float) -> bool:
    if elapsed < seconds:
        return False
    third = max(1, len(times) // 3)
    before, now = statistics.median(times[-2 * third : -third] or times), statistics.median(times[-third:])
    return now > 0.9 * before or elapsed > _LONGEST_WARM_UP * seconds


def _main() -> None:
    """Keep the real stdout for answers; what libraries print goes to stderr, which the parent keeps."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    serve(sys.stdin, answers)
    answers.flush()
    # Runtimes may take seconds, or crash, while they are torn down; nothing of that is of interest.
    os._exit(0)


if __name__ == "__main__":
    _main()
