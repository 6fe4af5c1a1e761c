"""The run directory: journal, checkpoints, finished report. Nothing else writes state."""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import os
import shutil
import time
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import IO, TYPE_CHECKING, Any, Self

from slimcv import bundle
from slimcv.errors import SlimcvError
from slimcv.predictions import PREDICTIONS
from slimcv.results import Record
from slimcv.writing import writable, write_text

if TYPE_CHECKING:
    from slimcv.step import Variant

log = logging.getLogger("slimcv")

JOURNAL = "journal.jsonl"
_VERSION = 1
_CLOCK = "clock"
_FINISHED = "finished"


class Run:
    """A run directory held open: what an earlier, interrupted run left is read back, what is new is appended.

    Checkpoint first, journal line second: a line in the journal means that its checkpoint is whole. A torn
    last line (the process died while writing it) is dropped. The journal is locked until `close`, which ends
    a `with` block: no other process may work in the folder.
    """

    def __init__(
        self, folder: Path, *, records: list[Record], lock: IO[bytes], finished: bool = False
    ) -> None:
        self.folder = folder
        self.finished = finished
        """Nothing is left to do but to replay the records, which need no checkpoint any more."""
        self._replay = records
        self._lock = lock
        self._keeps_time = True
        self._opened = time.perf_counter()
        self._seconds_before = _seconds_before(folder, records)
        self._seconds_lost = max(0.0, self._seconds_before - sum(record.seconds for record in records))
        self._keep_time()

    @classmethod
    def open(cls, folder: Path, *, identity: dict[str, Any], overwrite: bool = False) -> Run:
        """Open `folder` for the run that `identity` describes; start it, or go on where it stopped.

        `identity` holds everything the outcome depends on (model hash, recipe, data fingerprint, seed, gate
        …). Raises SlimcvError where the folder cannot be written, belongs to another run, or another process
        works in it; `overwrite` starts anew.
        """
        key = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()
        folder = folder.resolve()
        with writable(folder), ExitStack() as held:
            folder.mkdir(parents=True, exist_ok=True)
            names = {path.name for path in folder.iterdir()}
            if names and JOURNAL not in names:
                raise _foreign(folder)
            lock = held.enter_context(_locked(folder))
            header, records, finished = _read(folder, overwrite=overwrite)
            if header is None and any(not _is_torn_journal(path) for path in folder.iterdir()):
                raise _foreign(folder)
            if header is None or overwrite:
                _clear(folder)
                records, finished = [], False
                header = {"slimcv_journal": _VERSION, "key": key, "identity": identity}
                _append(folder, header)
            if header.get("key") != key:
                difference = _difference(header.get("identity", {}), identity)
                raise SlimcvError(
                    f"--out {folder}: belongs to another run ({difference})",
                    "name another --out, or --overwrite to start anew there",
                )
            run = cls(folder, records=records, lock=lock, finished=finished)
            held.pop_all()
            return run

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let another process work in the folder; what was not committed goes on from its last checkpoint."""
        if self._lock.closed:
            return
        with suppress(SlimcvError):  # The time is lost then, which is better than to hide what ended the run.
            self._keep_time()
        self._lock.close()

    @property
    def workdir(self) -> Path:
        """Scratch files of this run; removed when it is finished."""
        path = self.folder / "work"
        path.mkdir(exist_ok=True)
        return path

    @property
    def resumed(self) -> bool:
        """Records of an earlier, interrupted run are still to be replayed."""
        return bool(self._replay)

    @property
    def seconds(self) -> float:
        """Wall time spent on this run: by this process, and by those before it that were interrupted."""
        return self._seconds_before + time.perf_counter() - self._opened

    def replay(self) -> Record | None:
        """The next record of the interrupted run, or None once all have been replayed."""
        return self._replay.pop(0) if self._replay else None

    def commit(self, record: Record) -> Record:
        """Append one line to the journal, whose checkpoint must already be on disk; the record as it says it.

        Its seconds are those of interrupted processes too, which worked at it before.
        """
        record = replace(record, seconds=record.seconds + self._seconds_lost)
        with writable(self.folder):
            _append(self.folder, {"record": record.as_json()})
        self._seconds_lost = 0.0
        self._keep_time()
        return record

    def save_checkpoint(self, number: int, name: str, variant: Variant) -> str:
        """Write a variant as `checkpoints/NNN-name.pt2`; return that path, relative to the run directory."""
        from slimcv.models import checkpoint

        relative = _checkpoint(number, name)
        with writable(self.folder):
            (self.folder / "checkpoints").mkdir(exist_ok=True)
            checkpoint.save(variant, self.folder / relative)
        return relative

    def find_checkpoint(self, number: int, name: str) -> str | None:
        """The checkpoint that a run which died before its journal line left behind, or None."""
        relative = _checkpoint(number, name)
        return relative if (self.folder / relative).is_file() else None

    def drop_checkpoint(self, number: int, name: str) -> None:
        """Remove what `save_checkpoint` wrote, where it was written."""
        (self.folder / _checkpoint(number, name)).unlink(missing_ok=True)

    def read_checkpoint(self, relative: str) -> Variant:
        """The variant that `save_checkpoint` wrote."""
        from slimcv.models import checkpoint

        return checkpoint.read(self.folder / relative)

    def remember(self, name: str, values: dict[str, Any]) -> None:
        """Keep a piece of the run's state under `name`, replaced as a whole."""
        with writable(self.folder):
            write_text(self.workdir / f"{name}.json", json.dumps(values))

    def recall(self, name: str) -> dict[str, Any] | None:
        """What `remember` kept, or None."""
        return _recalled(self.folder, name)

    def finish(self, *, keep_checkpoints: bool = True) -> None:
        """Remove the scratch files and perhaps the checkpoints; nothing of the run is left to do."""
        if not keep_checkpoints:
            if not self.finished:
                with writable(self.folder):
                    _append(self.folder, {_FINISHED: True})
            shutil.rmtree(self.folder / "checkpoints", ignore_errors=True)
        shutil.rmtree(self.folder / "work", ignore_errors=True)
        self._keeps_time = False

    def _keep_time(self) -> None:
        if self._keeps_time:
            self.remember(_CLOCK, {"seconds": self.seconds})


def _read(folder: Path, *, overwrite: bool) -> tuple[dict[str, Any] | None, list[Record], bool]:
    """The journal's first line, its records, and whether the run came to its end."""
    path = folder / JOURNAL
    if not path.is_file():
        return None, [], False
    header: dict[str, Any] | None = None
    records: list[Record] = []
    whole, finished = 0, False
    for line in path.read_bytes().splitlines(keepends=True):
        try:
            values = json.loads(line)
        except ValueError:
            break
        if not line.endswith(b"\n") or not isinstance(values, dict):
            break
        if header is None and "slimcv_journal" not in values:
            return None, [], False
        whole += len(line)
        if header is None:
            header = values
            if overwrite:
                return header, [], False
            if values["slimcv_journal"] != _VERSION:
                raise SlimcvError(
                    f"{path}: not a journal this version of slimcv can continue",
                    "name another --out, or --overwrite",
                )
        elif "record" in values:
            records.append(Record.from_json(values["record"]))
        finished = _FINISHED in values
    if header is not None and whole != path.stat().st_size:
        os.truncate(path, whole)
    return header, records, finished


def _is_torn_journal(path: Path) -> bool:
    """A journal whose very first line was cut off: the run died before it had done anything."""
    if path.name != JOURNAL or not path.is_file():
        return False
    content = path.read_bytes()
    return not content or (content.startswith(b'{"slimcv_journal"') and b"\n" not in content)


def _append(folder: Path, values: dict[str, Any]) -> None:
    with (folder / JOURNAL).open("a", encoding="utf-8") as journal:
        journal.write(json.dumps(values) + "\n")
        journal.flush()
        os.fsync(journal.fileno())


def _recalled(folder: Path, name: str) -> dict[str, Any] | None:
    path = folder / "work" / f"{name}.json"
    if not path.is_file():
        return None
    values: dict[str, Any] = json.loads(path.read_text("utf-8"))
    return values


def _seconds_before(folder: Path, records: list[Record]) -> float:
    """Wall time that earlier processes spent on the run.

    One that was killed could not say how long it had worked since it last told the time; the files that it
    wrote after that do.
    """
    kept = _recalled(folder, _CLOCK)
    if kept is None:
        return sum(record.seconds for record in records)
    told = (folder / "work" / f"{_CLOCK}.json").stat().st_mtime
    written = [
        path.stat().st_mtime for name in ("work", "checkpoints") for path in (folder / name).rglob("*")
    ]
    return float(kept["seconds"]) + max(0.0, max(written) - told)


def _clear(folder: Path) -> None:
    """Remove what slimcv wrote into the folder and leave anything else alone.

    The journal is emptied: removed, it would take the lock with it.
    """
    bundle.clear(folder)
    for name in ("checkpoints", "work", "openvino"):
        shutil.rmtree(folder / name, ignore_errors=True)
    for name in ("report.json", "report.md", "report.html", PREDICTIONS):
        (folder / name).unlink(missing_ok=True)
    os.truncate(folder / JOURNAL, 0)


def _foreign(folder: Path) -> SlimcvError:
    return SlimcvError(
        f"--out {folder}: the folder is not empty and holds no run of slimcv",
        "name a new folder; nothing there was touched",
    )


def _locked(folder: Path) -> IO[bytes]:
    """The journal opened and locked; the lock ends with the process, however it ends."""
    lock = (folder / JOURNAL).open("ab")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        lock.close()
        raise SlimcvError(
            f"--out {folder}: another slimcv is working in this folder",
            "wait for it to end, or name another --out",
        ) from error
    except OSError:
        log.debug("%s: this file system knows no locks", folder)
    return lock


def _difference(theirs: dict[str, Any], ours: dict[str, Any]) -> str:
    changed = [key for key in ours if theirs.get(key) != ours[key]]
    return "another " + ", ".join(changed) if changed else "another version"


def _checkpoint(number: int, name: str) -> str:
    return f"checkpoints/{number:03d}-{name}.pt2"
