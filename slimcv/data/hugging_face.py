"""Pictures in tables: what `datasets` saved, Parquet files, WebDataset archives. Nothing is downloaded."""

from __future__ import annotations

import hashlib
import logging
import re
import tarfile
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

from slimcv.data.folder import FREE_SHARE, FULL, TABLES, Keeping, free_bytes, hold, make_room, writing
from slimcv.data.in_place import ParquetRows, TarRows
from slimcv.data.sources import Listing, Sample
from slimcv.data.tables import Cell, Kept, Table
from slimcv.errors import SlimcvError, first_line, nearest

BUILDERS = {".parquet": "parquet", ".tar": "webdataset"}
TRAIN = ("train", "training")
HELD_OUT = ("validation", "val", "valid", "dev", "test")
"""Names of splits, the preferred first."""

LABEL_NAMES = ("label", "labels", "class", "cls", "target")
"""Columns of plain numbers or words that are taken for the classes where there are several."""

NO_LABEL_COLUMNS = ("__key__", "__url__")
"""What WebDataset adds to its tables."""

LAYOUT_HINT = "expected what Dataset.save_to_disk wrote, a .parquet or .tar file, or a folder of them"
ROOM_HINT = "free some space, put the cache elsewhere with --cache DIR or let it grow with --cache-limit"
INSTALL_HINT = "pip install 'slimcv[hf]'"

DAMAGED = (OSError, ValueError, LookupError, TypeError, tarfile.TarError)
"""What `datasets` and Arrow raise on damaged files, beside exceptions of their own."""

log = logging.getLogger("slimcv")


def find(address: str, keeping: Keeping) -> Listing:
    """List the pictures of `PATH` or `PATH?image=COLUMN&label=COLUMN`.

    PATH is a folder that `Dataset.save_to_disk` or `DatasetDict.save_to_disk` wrote, a Parquet file, a
    WebDataset tar, or a folder of either whose names tell the splits apart. Parquet and tar files are first
    copied into tables that are quick to read in any order, in the cache folder and within its limit; where
    they find no room they are read where they are. Columns are found by their types unless named; splits are
    called train and validation, val, valid, dev or test.

    Raises SlimcvError where the library `datasets` is missing, or anything there is not of this form.
    """
    path, columns = _parsed(address)
    datasets = _library()
    with _local(datasets), _readable(datasets, path):
        tables, identity = _tables(datasets, path, keeping)
    train, held_out = _splits(tables, path)
    used = (train,) if held_out is None else (train, held_out)
    features = tables[train].features
    image = columns.get("image") or _image_column(datasets, features, path)
    label = columns.get("label") or _label_column(datasets, features, path)
    for name in used:
        known = list(tables[name].features)
        for column in (image, label):
            if column not in known:
                raise SlimcvError(f"{path}: {name} has no column '{column}'", nearest(column, known))
    with _readable(datasets, path):
        labels = {name: tables[name].column(label) for name in used}
    names = _class_names(features[label], labels, path)
    found = {
        name: _samples(tables[name], image, f"{path}:{name}", identity, names, labels[name]) for name in used
    }
    return Listing(tuple(names.values()), found[train], None if held_out is None else found[held_out])


def _parsed(address: str) -> tuple[Path, dict[str, str]]:
    name, _, query = address.partition("?")
    columns = dict(parse_qsl(query, keep_blank_values=True))
    for key in columns:
        if key not in ("image", "label"):
            raise SlimcvError(f"hf:{address}: unknown option '{key}'", nearest(key, ("image", "label")))
    path = Path(name).expanduser()
    if not path.exists():
        raise SlimcvError(
            f"no such file or folder: {path}", "hf: takes a path on this machine; " + LAYOUT_HINT
        )
    return path.absolute(), columns


def _library() -> Any:
    try:
        import datasets
    except ImportError as error:
        raise SlimcvError("hf: needs the library `datasets`", INSTALL_HINT) from error
    return datasets


@contextmanager
def _local(datasets: Any) -> Iterator[None]:
    """No network, no progress bars and no remarks while `datasets` is asked."""
    offline, bars = datasets.config.HF_HUB_OFFLINE, not datasets.are_progress_bars_disabled()
    verbosity = datasets.logging.get_verbosity()
    datasets.config.HF_HUB_OFFLINE = True
    datasets.disable_progress_bars()
    datasets.logging.set_verbosity(datasets.logging.CRITICAL)
    try:
        yield
    finally:
        datasets.config.HF_HUB_OFFLINE = offline
        datasets.logging.set_verbosity(verbosity)
        if bars:
            datasets.enable_progress_bars()


@contextmanager
def _readable(datasets: Any, path: Path) -> Iterator[None]:
    """What is raised on damaged files and full disks becomes a SlimcvError."""
    try:
        yield
    except (*DAMAGED, datasets.exceptions.DatasetsError) as error:
        cause = error.__cause__ or error
        hint = ROOM_HINT if isinstance(cause, OSError) and cause.errno in FULL else LAYOUT_HINT
        raise SlimcvError(f"cannot read {path}: {first_line(cause)}", hint) from cause


def _tables(datasets: Any, path: Path, keeping: Keeping) -> tuple[dict[str, Table], str]:
    """The table of each split, and an identity that changes when the files do."""
    if (path / "dataset_dict.json").is_file() or (path / "state.json").is_file():
        read = datasets.load_from_disk(str(path))
        splits = dict(read) if isinstance(read, Mapping) else {"train": read}
        identity = _identity(path, sorted(path.rglob("*")))
        return {name: Kept(table.with_format("arrow")) for name, table in splits.items()}, identity
    for suffix, builder in BUILDERS.items():
        files = [path] if path.suffix == suffix else sorted(path.rglob(f"*{suffix}"))
        if files:
            identity = _identity(path, files)
            return _copied(datasets, builder, _by_split(path, files), identity, keeping), identity
    raise SlimcvError(f"no pictures in tables in {path}", LAYOUT_HINT)


def _identity(path: Path, files: Iterable[Path]) -> str:
    digest = hashlib.sha256()
    for file in files:
        if file.is_file():
            status = file.stat()
            name = "" if file == path else file.relative_to(path).as_posix()
            digest.update(
                f"\0{name}\0{status.st_size}\0{status.st_mtime_ns}".encode("utf-8", "surrogateescape")
            )
    return digest.hexdigest()[:32]


def _by_split(path: Path, files: Sequence[Path]) -> dict[str, list[str]]:
    """Files by the split that a word of their name, or of a folder's, tells; train where none does."""
    found: dict[str, list[str]] = {}
    for file in files:
        name = file.name if file == path else file.relative_to(path).as_posix()
        words = re.split(r"[^a-z]+", name.lower())
        split = next((word for word in (*TRAIN, *HELD_OUT) if word in words), "train")
        found.setdefault(split, []).append(str(file))
    return found


def _copied(
    datasets: Any, builder: str, files: Mapping[str, Sequence[str]], identity: str, keeping: Keeping
) -> dict[str, Table]:
    """The files as tables on disk, copied there unless they were before, or where they are: without room."""
    needed = sum(Path(file).stat().st_size for some in files.values() for file in some)
    if keeping.folder is None:
        folder = Path(tempfile.gettempdir())
        if needed > min(keeping.limit_bytes, FREE_SHARE * free_bytes(folder)):
            return _in_place(datasets, builder, files, needed, folder)
        home: Any = tempfile.TemporaryDirectory(prefix="slimcv-")
        place = home.name
    else:
        folder = keeping.folder / f"{identity}{TABLES}"
        with writing(keeping.folder):
            if not (folder / "lock").exists():
                if not make_room(keeping.folder, needed, limit_bytes=keeping.limit_bytes):
                    return _in_place(datasets, builder, files, needed, keeping.folder)
                folder.mkdir(exist_ok=True)
            home = (folder / "lock").open("ab")
            hold(home)
        place = str(folder)
    data_files = {name: list(some) for name, some in files.items()}
    read = datasets.load_dataset(builder, data_files=data_files, cache_dir=place)
    return {name: Kept(table.with_format("arrow"), home) for name, table in read.items()}


def _in_place(
    datasets: Any, builder: str, files: Mapping[str, Sequence[str]], needed: int, folder: Path
) -> dict[str, Table]:
    log.warning(
        "%.1f GB of tables find no room in %s: their rows are read where they are, which takes longer",
        needed / 1e9,
        folder,
    )
    rows: Any = ParquetRows if builder == "parquet" else TarRows
    return {name: rows(datasets, list(some)) for name, some in files.items()}


def _splits(tables: Mapping[str, Table], path: Path) -> tuple[str, str | None]:
    """The names of the split to train on and of the one to report on, None where nothing is held out."""
    train = next((name for name in TRAIN if name in tables), None)
    if train is None and len(tables) == 1:
        train = next(iter(tables))
    if train is None:
        raise SlimcvError(f"{path} has no split 'train', only {', '.join(tables)}", LAYOUT_HINT)
    return train, next((name for name in HELD_OUT if name in tables and name != train), None)


def _image_column(datasets: Any, features: Mapping[str, Any], path: Path) -> str:
    found = [name for name, feature in features.items() if isinstance(feature, datasets.Image)]
    # Parquet that was not written by `datasets` does not say that its bytes are pictures.
    found = found or [name for name, feature in features.items() if _holds_bytes(feature)]
    return _only(found, "image", features, path)


def _holds_bytes(feature: Any) -> bool:
    held = feature.get("bytes") if isinstance(feature, Mapping) else feature
    return getattr(held, "dtype", None) in ("binary", "large_binary")


def _label_column(datasets: Any, features: Mapping[str, Any], path: Path) -> str:
    found = [name for name, feature in features.items() if isinstance(feature, datasets.ClassLabel)]
    if not found:
        found = [
            name
            for name, feature in features.items()
            if isinstance(feature, datasets.Value)
            and re.fullmatch(r"u?int\d+|(large_)?string", feature.dtype)
            and name not in NO_LABEL_COLUMNS
        ]
        named = [name for name in found if name.lower() in LABEL_NAMES]
        found = named if len(named) == 1 else found
    return _only(found, "label", features, path)


def _only(found: Sequence[str], role: str, features: Mapping[str, Any], path: Path) -> str:
    if len(found) == 1:
        return found[0]
    which = f"{len(found)} columns may hold the {role}" if found else f"no column seems to hold the {role}"
    raise SlimcvError(
        f"{path}: {which}", f"name it: hf:{path}?{role}=COLUMN; known: {', '.join(found or features)}"
    )


def _class_names(feature: Any, labels: Mapping[str, Sequence[Any]], path: Path) -> dict[Any, str]:
    """The name of each class by its label, in the order of the labels."""
    for split, values in labels.items():
        missing = next((row for row, value in enumerate(values) if value is None or value == -1), None)
        if missing is not None:
            raise SlimcvError(f"{path}: row {missing} of {split} has no label", "remove unlabelled rows")
    if hasattr(feature, "names"):
        return dict(enumerate(feature.names))
    try:
        return {value: str(value) for value in sorted({value for some in labels.values() for value in some})}
    except TypeError as error:
        raise SlimcvError(
            f"{path}: the labels are neither numbers nor words", "name it: ?label=COLUMN"
        ) from error


def _samples(
    table: Table, image: str, place: str, identity: str, names: Mapping[Any, str], labels: Sequence[Any]
) -> tuple[Sample, ...]:
    split = place.rpartition(":")[2]
    found = []
    for row, label in enumerate(labels):
        key = f"{split}[{row}]"
        name = f"{place}[{row}]"
        found.append(Sample(Cell(table, image, row, name), name, key, names[label], f"{identity}:{key}"))
    return tuple(found)
