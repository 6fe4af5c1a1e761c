"""A sign of life that every process gives, and listens for: so that nobody waits for the dead."""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from contextlib import suppress
from dataclasses import dataclass

from torch.distributed import Store

from slimcv.errors import SlimcvError

BEAT_SECONDS = 1.0

SILENT_SECONDS = 12.0
"""Without a sign for so long a process counts as dead; a busy machine delays one by less."""

ACT_SECONDS = 8.0
"""What a process may take to notice that another is gone; after that it is ended from within."""

VERDICT_SECONDS = 4.0
"""How long the dying wait to learn from what: several beats."""

INTERRUPTED = "interrupted"
"""The last words of a process that somebody stopped, for instance with Ctrl-C."""

HINT = "the same command on every machine goes on from the last state that was kept"

log = logging.getLogger("slimcv")


@dataclass(frozen=True)
class Member:
    """Another process, as it is named to the user."""

    rank: int
    host: str
    process: int

    def __str__(self) -> str:
        return f"rank {self.rank} on {self.host} (process {self.process})"


class Pulse(threading.Thread):
    """Beats, listens, and interrupts this process where another has ended.

    A process that ends before its time leaves its last words: why it ended, or INTERRUPTED. One that was
    killed leaves none and is silent. The main thread is interrupted as by the signal TERM; what the reason
    was is told by `verdict`. `store` must be one that no other thread uses.
    """

    def __init__(self, store: Store, rank: int, members: list[Member]) -> None:
        super().__init__(name="pulse", daemon=True)
        self._store, self._rank, self._members = store, rank, members
        self._others = [member for member in members if member.rank != rank]
        self._beats: dict[int, bytes] = {}
        self._changed = dict.fromkeys((member.rank for member in members), time.monotonic())
        self._words: dict[int, str] = {}
        self._heard = time.monotonic()
        self._alarmed: float | None = None
        self._calm, self._over = threading.Event(), threading.Event()

    def run(self) -> None:
        """Beat until `stop`."""
        number = 0
        while not self._over.wait(BEAT_SECONDS):
            number += 1
            try:
                self._beat(number)
            except RuntimeError as error:
                log.debug("no sign of life could be given: %s", error)
            if not self._calm.is_set():
                self._watch()

    def stop(self) -> None:
        """Give no more signs of life."""
        self._over.set()

    def calm(self) -> None:
        """Go on beating and listening, but interrupt nothing: this process knows."""
        self._calm.set()

    def leave(self, store: Store, words: str) -> None:
        """Tell the others why this process ends; where that cannot be told any more they hear its silence.

        `store` must not be one that may hang in another thread.
        """
        if not self.stalled:
            with suppress(RuntimeError):
                store.set(_words_key(self._rank), words)

    @property
    def stalled(self) -> bool:
        """Nothing was heard for too long, of anybody: this machine is cut off."""
        return time.monotonic() - self._heard > SILENT_SECONDS

    def verdict(self) -> str | None:
        """Why this process cannot go on, in one sentence; None where the others were interrupted like it.

        Waits a few beats for what the others leave. `calm` first.
        """
        end = time.monotonic() + VERDICT_SECONDS
        while time.monotonic() < end:
            reasons = [words for words in self._words.values() if words != INTERRUPTED]
            if reasons:
                return reasons[0]
            if len(self._words) == len(self._others):
                return None
            time.sleep(0.1)
        patience = VERDICT_SECONDS - 2 * BEAT_SECONDS
        if silent := self._silent(longer_than=patience):
            return f"{silent[0]} ended without a word: it was killed, or its machine is gone"
        if time.monotonic() - self._heard > patience:
            return (
                f"nothing is heard any more of the other processes: {self._members[0]} or its launcher was "
                "killed, or the network is gone"
            )
        return None

    def _beat(self, number: int) -> None:
        self._store.set(_pulse_key(self._rank), str(number))
        ranks = [member.rank for member in self._others]
        said = [rank for rank in ranks if self._store.check([_words_key(rank)])]
        self._words |= {rank: self._store.get(_words_key(rank)).decode() for rank in said}
        now = time.monotonic()
        for rank in ranks:
            beat = self._store.get(_pulse_key(rank)) if self._store.check([_pulse_key(rank)]) else b""
            if beat != self._beats.get(rank, b""):
                self._beats[rank], self._changed[rank] = beat, now
        self._heard = now

    def _silent(self, *, longer_than: float) -> list[Member]:
        """Those who gave no sign for so long, and no last words, as far as anything was heard at all."""
        return [
            member
            for member in self._others
            if member.rank not in self._words and self._heard - self._changed[member.rank] > longer_than
        ]

    def _watch(self) -> None:
        now = time.monotonic()
        if self._alarmed is not None:
            if now - self._alarmed > ACT_SECONDS:
                self._end_process()
        elif self._words or self.stalled or self._silent(longer_than=SILENT_SECONDS):
            self._alarmed = now
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGTERM)

    def _end_process(self) -> None:
        """The main thread is in a call that no signal ends."""
        reason = self.verdict() or INTERRUPTED
        log.error("error: %s", reason)
        log.error("hint: %s", HINT)
        self.leave(self._store, reason)
        os._exit(SlimcvError.exit_code)


def _pulse_key(rank: int) -> str:
    return f"slimcv/pulse/{rank}"


def _words_key(rank: int) -> str:
    return f"slimcv/words/{rank}"
