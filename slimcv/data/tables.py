"""Rows of tables on disk, and the encoded picture in one of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol


class Table(Protocol):
    """Rows with columns of these names, which have features of `datasets`."""

    @property
    def features(self) -> Mapping[str, Any]:
        """What is in each column."""

    def column(self, name: str) -> list[Any]:
        """All values of one column."""

    def value(self, row: int, column: str) -> Any:
        """The value there. Raises OSError or ValueError."""


@dataclass(frozen=True)
class Kept:
    """A `datasets.Dataset`, its rows in the form that is quickest to read, and what keeps its files there."""

    dataset: Any
    home: Any = None

    @property
    def features(self) -> Mapping[str, Any]:
        """What is in each column."""
        return self.dataset.features  # type: ignore[no-any-return]

    def column(self, name: str) -> list[Any]:
        """All values of one column."""
        values: list[Any] = self.dataset.select_columns([name])[:][name].to_pylist()
        return values

    def value(self, row: int, column: str) -> Any:
        """The value there."""
        return self.dataset[row][column][0].as_py()


@dataclass(frozen=True, slots=True)
class Cell:
    """The encoded picture in one row of a table; `filename` is what a message calls it."""

    table: Table
    column: str
    row: int
    filename: str

    def read(self) -> bytes:
        """The contents of the picture's file. Raises OSError, or ValueError for an empty cell."""
        value = self.table.value(self.row, self.column)
        if isinstance(value, Mapping):
            contents, path = value.get("bytes"), value.get("path")
            value = _contents(Path(path)) if contents is None and path else contents
        if not isinstance(value, bytes):
            raise ValueError("no picture in this row")
        return value


def _contents(path: Path) -> bytes:
    """The bytes of an ordinary file: a row may name a device that never ends, or a pipe nobody writes to."""
    if path.exists() and not path.is_file():
        raise ValueError(f"{path} is not a file")
    return path.read_bytes()
