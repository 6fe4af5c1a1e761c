"""The processes that train together: what each has its share of, what is added up, what rank 0 orders."""

from __future__ import annotations

import atexit
import json
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import timedelta
from enum import IntEnum
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar

import numpy as np
import torch
import torch.distributed
from torch import Tensor

from slimcv import __version__
from slimcv.errors import SlimcvError, first_line
from slimcv.measure.threads import available
from slimcv.train.processes.launched import Launch
from slimcv.train.processes.pulse import BEAT_SECONDS, HINT, INTERRUPTED, Member, Pulse

if TYPE_CHECKING:
    from slimcv.step import Context

JOIN_SECONDS = 300.0
"""How long the first to come waits for the last."""

TELL_SECONDS = 10.0
"""After so much waiting it is said for whom."""

WAIT = timedelta(seconds=1)
"""How long a wait may be deaf to signals."""

LONG = timedelta(days=7)
"""What PyTorch is to count as too long: whether somebody is dead is for Pulse to say, not for a clock."""

EXIT_INTERRUPTED = 128 + signal.SIGINT

NUMBERS = 6
"""What an order has beside its kind."""

T = TypeVar("T")
log = logging.getLogger("slimcv")


class LostError(SlimcvError):
    """Another process is gone, or the way to it."""

    def __init__(self) -> None:
        super().__init__("the connection to another process broke", HINT)


class Order(IntEnum):
    """What rank 0 tells the others to do, with the numbers that come with it."""

    ASK = 1
    """Ask the teacher about a share: form, view, first picture, the one after the last."""
    TRAIN = 2
    """Receive a training and follow it."""
    STEP = 3
    """Epoch, step, learning rate, steps that share the update, whether the weights change now, and how much
    of the training lies behind."""
    SCORE = 4
    """Judge a share of the tuning split; whether by the running average of the weights."""
    REST = 5
    """The training is over."""
    LEAVE = 6
    """The run is over."""


class Processes:
    """One process alone: its share is the whole, and there is nobody to tell anything."""

    rank, count, local_count = 0, 1, 1

    def part(self, index: np.ndarray) -> np.ndarray:
        """The share of some positions: those of all ranks in order are the whole, none twice."""
        return np.array_split(index, self.count)[self.rank]

    def add_up(self, tensors: Sequence[Tensor]) -> None:
        """Put the sum over all processes into each tensor; the processes get the very same bits."""

    def order(self, kind: Order, *numbers: float) -> None:
        """Let the others do their part, as rank 0."""

    def send(self, data: bytes) -> None:
        """Give the others what they `receive`, as rank 0."""


ALONE = Processes()


def of(context: Context) -> Processes:
    """The processes that a context trains on."""
    return context.processes or ALONE


class Group(Processes):
    """Several processes. As a context manager it tells the others when this one ends, and why.

    Every wait can be interrupted. Where another process is gone LostError is raised, or KeyboardInterrupt
    while this one was busy with something else; the end of the `with` block turns both into a SlimcvError
    that names the process, unless all were interrupted alike.
    """

    def __init__(self, launch: Launch) -> None:
        self.rank, self.count, self.local_count = launch.rank, launch.count, launch.local_count
        # Where this is not set accelerate counts the cores, and fails where they cannot be told apart.
        os.environ.setdefault("OMP_NUM_THREADS", str(self.threads))
        self._store = _meeting_place(launch)
        me = {"host": socket.gethostname(), "process": os.getpid()}
        self.put("here", me | {"slimcv": __version__, "torch": torch.__version__})
        found = self.gather("here", patience=JOIN_SECONDS)
        self.members = [Member(rank, each["host"], each["process"]) for rank, each in enumerate(found)]
        self._refuse_other_versions(found)
        self._pulse = Pulse(self._store.clone(), self.rank, self.members)  # type: ignore[attr-defined]
        self._pulse.start()
        torch.distributed.init_process_group(
            "gloo",
            store=torch.distributed.PrefixStore("slimcv/group", self._store),
            rank=self.rank,
            world_size=self.count,
            timeout=LONG,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pulse.calm()
        if error is None:
            if self.rank == 0:
                with suppress(LostError):  # There is nothing left that the others could be needed for.
                    self.order(Order.LEAVE)
            self._pulse.stop()
            torch.distributed.destroy_process_group()
            return
        # A second interruption, by the launcher for instance, must not hide why the first one came.
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
        reason = None
        if not isinstance(error, LostError):
            self._pulse.leave(self._store, self._last_words(error))
        if isinstance(error, LostError | KeyboardInterrupt):
            reason = self._pulse.verdict()
            self._pulse.leave(self._store, reason or self._last_words(error))
        self._pulse.stop()
        if self.rank == 0 and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
            time.sleep(2 * BEAT_SECONDS)  # The words are kept by this very process.
        # At its end PyTorch would wait for messages that never come.
        atexit.register(_end_process, _exit_code(error, reason))
        if reason is not None:
            raise SlimcvError(reason, HINT) from error

    @property
    def threads(self) -> int:
        """How many threads this process may train with, beside the others on its machine."""
        return max(1, available() // self.local_count)

    @property
    def machines(self) -> int:
        """How many different hosts there are."""
        return len({member.host for member in self.members})

    # Values that are small and seldom, by name

    def put(self, name: str, values: dict[str, Any]) -> None:
        """Let all processes read these values of this one."""
        self._store.set(f"slimcv/{name}/{self.rank}", json.dumps(values))

    def get(self, name: str, rank: int = 0) -> dict[str, Any]:
        """What a process `put`, once it has."""
        values: dict[str, Any] = self.gather(name, ranks=(rank,))[0]
        return values

    def gather(
        self, name: str, *, ranks: Sequence[int] = (), patience: float = float("inf")
    ) -> list[dict[str, Any]]:
        """What every process put, by default, once all have. Raises SlimcvError after so many seconds."""
        keys = [f"slimcv/{name}/{rank}" for rank in ranks or range(self.count)]
        begun, told = time.monotonic(), False
        while missing := [key.rpartition("/")[2] for key in keys if not self._is_there(key)]:
            who = f"rank {', '.join(missing)} of {self.count}"
            waited = time.monotonic() - begun
            if waited > TELL_SECONDS and not told:
                told = True
                log.info("waiting for %s", who)
            if waited > patience:
                raise SlimcvError(
                    f"{who} did not come within {patience:.0f} s",
                    "start the same command on every machine, with the same number of processes",
                )
            time.sleep(0.1)
        return [json.loads(_guarded(partial(self._store.get, key))) for key in keys]

    def _is_there(self, key: str) -> bool:
        return _guarded(partial(self._store.check, [key]))

    # What is many bytes, or often

    def add_up(self, tensors: Sequence[Tensor]) -> None:
        """Sum in one message, in float32 or wider."""
        flat = torch.cat([tensor.detach().reshape(-1) for tensor in tensors])
        self._done(lambda: torch.distributed.all_reduce(flat, async_op=True))
        parts = torch.split(flat, [tensor.numel() for tensor in tensors])
        for tensor, part in zip(tensors, parts, strict=True):
            tensor.detach().copy_(part.view(tensor.shape))

    def order(self, kind: Order, *numbers: float) -> None:
        """Orders go to all at once, and come in the order they were given."""
        padding = (0.0,) * (NUMBERS - len(numbers))
        self._broadcast(torch.tensor((kind, *numbers, *padding), dtype=torch.float64))

    def awaited(self) -> tuple[Order, list[float]]:
        """The next order of rank 0 and its numbers; they are NUMBERS, the last perhaps of no meaning."""
        kind, *numbers = self._broadcast(torch.zeros(1 + NUMBERS, dtype=torch.float64)).tolist()
        return Order(int(kind)), numbers

    def send(self, data: bytes) -> None:
        """The length first."""
        self._broadcast(torch.tensor([len(data)]))
        self._broadcast(torch.frombuffer(bytearray(data), dtype=torch.uint8))

    def receive(self) -> bytes:
        """What rank 0 sends."""
        length = int(self._broadcast(torch.zeros(1, dtype=torch.int64)))
        return self._broadcast(torch.zeros(length, dtype=torch.uint8)).numpy().tobytes()

    def _broadcast(self, tensor: Tensor) -> Tensor:
        self._done(lambda: torch.distributed.broadcast(tensor, src=0, async_op=True))
        return tensor

    def _done(self, begin: Callable[[], torch.distributed.Work]) -> None:
        """Begin and wait, a second at a time: a signal is only heard between two waits."""
        work = _guarded(begin)
        while True:
            try:
                work.wait(WAIT)
                return
            except RuntimeError as error:
                if work.is_completed() or self._pulse.stalled:
                    raise LostError from error

    def _last_words(self, error: BaseException) -> str:
        if isinstance(error, KeyboardInterrupt):
            return INTERRUPTED
        message = error.message if isinstance(error, SlimcvError) else f"{type(error).__name__}: {error}"
        return f"{self.members[self.rank]} stopped: {message}"

    def _refuse_other_versions(self, found: Sequence[dict[str, Any]]) -> None:
        first, *others = [f"slimcv {each['slimcv']} with torch {each['torch']}" for each in found]
        for member, other in zip(self.members[1:], others, strict=True):
            if other != first:
                raise SlimcvError(
                    f"{member} has {other}, {self.members[0]} has {first}",
                    "install the same versions on every machine",
                )


def _meeting_place(launch: Launch) -> torch.distributed.Store:
    """The store that all processes can reach; rank 0 holds it, where its launcher does not."""
    from torch.distributed.rendezvous import rendezvous

    os.environ.update(RANK=str(launch.rank), WORLD_SIZE=str(launch.count))
    os.environ.update(MASTER_ADDR=launch.address, MASTER_PORT=launch.port)
    try:
        store: torch.distributed.Store = next(
            rendezvous("env://", timeout=timedelta(seconds=JOIN_SECONDS))  # type: ignore[no-untyped-call]
        )[0]
    except (RuntimeError, ValueError) as error:
        raise SlimcvError(
            f"the meeting place {launch.address}:{launch.port} cannot be reached: {first_line(error)}",
            "give the address of rank 0's machine, and a port there that is free and that no firewall closes",
        ) from error
    return store


def _exit_code(error: BaseException, reason: str | None) -> int:
    """What the process will end with, as the command line has it."""
    if reason is not None or isinstance(error, SlimcvError):
        return SlimcvError.exit_code
    return EXIT_INTERRUPTED if isinstance(error, KeyboardInterrupt) else 1


def _end_process(code: int) -> None:
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(code)


def _guarded(call: Callable[[], T]) -> T:
    try:
        return call()
    except RuntimeError as error:
        raise LostError from error
