"""The run directory: journal, checkpoints, finished report. Nothing else writes state."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from slimcv.errors import SlimcvError
from slimcv.results import Record

if TYPE_CHECKING:
    from slimcv.step import Variant

JOURNAL = "journal.jsonl"
_VERSION = 1


class Run:
    """A run directory held open: what an earlier, interrupted run left is read back, what is new is appended.

    Checkpoint first, journal line second: a line in the journal means that its checkpoint is whole. A torn
    last line (the process died while writing it) is dropped.
    """

    def __init__(self, folder: Path, *, records: list[Record]) -> None:
        self.folder = folder
        self._replay = records

    @classmethod
    def open(cls, folder: Path, *, identity: dict[str, Any], overwrite: bool = False) -> Run:
        """Open `folder` for the run that `identity` describes; start it, or go on where it stopped.

        `identity` holds everything the outcome depends on (model hash, recipe, data fingerprint, seed, gate
        …). Raises SlimcvError where the folder cannot be written or belongs to another run; `overwrite`
        starts anew.
        """
        key = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()
        folder = folder.resolve()
        with _writable(folder):
            folder.mkdir(parents=True, exist_ok=True)
            header, records = _read(folder, overwrite=overwrite)
            if header is None and any(not _is_torn_journal(path) for path in folder.iterdir()):
                raise SlimcvError(
                    f"--out {folder}: the folder is not empty and holds no run of slimcv",
                    "name a new folder; nothing there was touched",
                )
            if header is None or overwrite:
                _clear(folder)
                records = []
                header = {"slimcv_journal": _VERSION, "key": key, "identity": identity}
                _append(folder, header)
        if header.get("key") != key:
            difference = _difference(header.get("identity", {}), identity)
            raise SlimcvError(
                f"--out {folder}: belongs to another run ({difference})",
                "name another --out, or --overwrite to start anew there",
            )
        return cls(folder, records=records)

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

    def replay(self) -> Record | None:
        """The next record of the interrupted run, or None once all have been replayed."""
        return self._replay.pop(0) if self._replay else None

    def commit(self, record: Record) -> None:
        """Append one line to the journal; its checkpoint must already be on disk."""
        with _writable(self.folder):
            _append(self.folder, {"record": record.as_json()})

    def save_checkpoint(self, number: int, name: str, variant: Variant) -> str:
        """Write a variant as `checkpoints/NNN-name.pt2`; return that path, relative to the run directory."""
        from slimcv.models import checkpoint

        relative = _checkpoint(number, name)
        with _writable(self.folder):
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
        with _writable(self.folder):
            _replace(self.workdir / f"{name}.json", json.dumps(values))

    def recall(self, name: str) -> dict[str, Any] | None:
        """What `remember` kept, or None."""
        path = self.workdir / f"{name}.json"
        if not path.is_file():
            return None
        values: dict[str, Any] = json.loads(path.read_text("utf-8"))
        return values

    def finish(self) -> None:
        """Remove the scratch files."""
        shutil.rmtree(self.folder / "work", ignore_errors=True)


def _read(folder: Path, *, overwrite: bool) -> tuple[dict[str, Any] | None, list[Record]]:
    path = folder / JOURNAL
    if not path.is_file():
        return None, []
    header: dict[str, Any] | None = None
    records: list[Record] = []
    whole = 0
    for line in path.read_bytes().splitlines(keepends=True):
        try:
            values = json.loads(line)
        except ValueError:
            break
        if not line.endswith(b"\n") or not isinstance(values, dict):
            break
        if header is None and "slimcv_journal" not in values:
            return None, []
        whole += len(line)
        if header is None:
            header = values
            if overwrite:
                return header, []
            if values["slimcv_journal"] != _VERSION:
                raise SlimcvError(
                    f"{path}: not a journal this version of slimcv can continue",
                    "name another --out, or --overwrite",
                )
        elif "record" in values:
            records.append(Record.from_json(values["record"]))
    if header is not None and whole != path.stat().st_size:
        os.truncate(path, whole)
    return header, records


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


def _replace(path: Path, text: str) -> None:
    draft = path.with_name(path.name + ".tmp")
    draft.write_text(text, "utf-8")
    draft.replace(path)


def _clear(folder: Path) -> None:
    """Remove what slimcv wrote into the folder and leave anything else alone."""
    for name in ("checkpoints", "work", "openvino"):
        shutil.rmtree(folder / name, ignore_errors=True)
    for name in (JOURNAL, "model.pt2", "model.onnx", "report.json", "report.md", "slimcv.json"):
        (folder / name).unlink(missing_ok=True)


def _difference(theirs: dict[str, Any], ours: dict[str, Any]) -> str:
    changed = [key for key in ours if theirs.get(key) != ours[key]]
    return "another " + ", ".join(changed) if changed else "another version"


@contextmanager
def _writable(folder: Path) -> Iterator[None]:
    """Turn the operating system's refusal to write into a sentence; what was whole on disk stays whole."""
    try:
        yield
    except OSError as error:
        raise SlimcvError(
            f"--out {folder}: cannot be written: {error.strerror or error}",
            "free some space or name another --out; "
            "the run goes on from its last checkpoint with the same command",
        ) from error


def _checkpoint(number: int, name: str) -> str:
    return f"checkpoints/{number:03d}-{name}.pt2"
