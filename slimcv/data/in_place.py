"""Tables that are read where they are: rows of Parquet files, members of tar archives. Nothing is copied."""

from __future__ import annotations

import re
import tarfile
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np

GROUPS_BYTES = 256 * 2**20
"""Memory that groups of rows may take which were read for one of their rows."""

HIDDEN = (".", "__")
"""How names of files begin that `datasets` passes over."""

_NAME = re.compile(r"((?:.*/)?[^.]+)\.([^/]*)")
"""Key and field of a member (the WebDataset format): what its name has before and after the first dot."""


class ParquetRows:
    """The rows of Parquet files of one schema, one file after the other.

    A group of rows is the least that can be read: those read last are kept for its other rows.
    """

    def __init__(self, datasets: Any, files: Sequence[str]) -> None:
        from pyarrow import parquet

        self._files = files
        self.features: Mapping[str, Any] = datasets.Features.from_arrow_schema(parquet.read_schema(files[0]))
        places, counts = [], []
        for number, file in enumerate(files):
            metadata = parquet.read_metadata(file)
            places += [(number, group) for group in range(metadata.num_row_groups)]
            counts += [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]
        self._places, self._ends = places, np.cumsum(counts)
        self._kept: OrderedDict[tuple[int, str], Any] = OrderedDict()
        self._lock = Lock()

    def column(self, name: str) -> list[Any]:
        """All values of one column."""
        from pyarrow import parquet

        return [
            value
            for file in self._files
            for value in parquet.read_table(file, columns=[name])[name].to_pylist()
        ]

    def value(self, row: int, column: str) -> Any:
        """The value there. Raises OSError, or ValueError where the file is not what it was."""
        at = int(np.searchsorted(self._ends, row, side="right"))
        first = int(self._ends[at - 1]) if at else 0
        return self._group(at, column)[row - first].as_py()

    def _group(self, at: int, column: str) -> Any:
        from pyarrow import parquet

        with self._lock:
            if (at, column) not in self._kept:
                number, group = self._places[at]
                with parquet.ParquetFile(self._files[number]) as file:
                    found = file.read_row_group(group, columns=[column])[column]
                others = self._kept.values()
                while self._kept and found.nbytes + sum(one.nbytes for one in others) > GROUPS_BYTES:
                    self._kept.popitem(last=False)
                self._kept[at, column] = found
            self._kept.move_to_end((at, column))
            return self._kept[at, column]


@dataclass(frozen=True, slots=True)
class _Member:
    """Where the contents of an archive's member are."""

    file: str
    offset: int
    size: int

    def read(self) -> bytes:
        with Path(self.file).open("rb") as file:
            file.seek(self.offset)
            found = file.read(self.size)
        if len(found) != self.size:
            raise ValueError("the archive is shorter than it was")
        return found


class TarRows:
    """Samples of WebDataset archives: members one after the other, their names the same up to a dot."""

    def __init__(self, datasets: Any, files: Sequence[str]) -> None:
        from datasets.packaged_modules.webdataset.webdataset import WebDataset

        self._decoders = WebDataset.DECODERS
        self._rows = [row for file in files for row in _samples(file)]
        if not self._rows:
            raise ValueError("no files named KEY.FIELD in it")
        images = set(WebDataset.IMAGE_EXTENSIONS)
        self.features: Mapping[str, Any] = {
            name: datasets.Image() if _ending(name) in images else _feature(datasets, self.value(0, name))
            for name in self._rows[0]
        }

    def column(self, name: str) -> list[Any]:
        """All values of one column, None where a sample has none."""
        return [self.value(row, name) for row in range(len(self._rows))]

    def value(self, row: int, column: str) -> Any:
        """The member's contents, decoded where its ending says how. Raises OSError or ValueError."""
        member = self._rows[row].get(column)
        if member is None:
            return None
        decode = self._decoders.get(_ending(column))
        return member.read() if decode is None else decode(member.read())


def _samples(path: str) -> list[dict[str, _Member]]:
    found: list[dict[str, _Member]] = []
    last = None
    with tarfile.open(path, "r:") as archive:
        for member in archive:
            named = _NAME.fullmatch(member.name)
            if named is None or not member.isreg() or member.name.rpartition("/")[2].startswith(HIDDEN):
                continue
            key, field = named.groups()
            if key != last:
                found.append({})
            last = key
            found[-1][field] = _Member(path, member.offset_data, member.size)
    return found


def _ending(field: str) -> str:
    return field.rpartition(".")[2].lower()


def _feature(datasets: Any, value: Any) -> Any:
    kinds = {bool: "bool", int: "int64", str: "string", bytes: "binary"}
    return datasets.Value(kinds[type(value)]) if type(value) in kinds else None
