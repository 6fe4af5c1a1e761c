"""Labelled pictures in three splits: what a model is fine-tuned on, decided by, and reported on."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from slimcv.data import sources
from slimcv.data.cache import Decoded
from slimcv.data.folder import LIMIT_BYTES, Keeping, default_folder
from slimcv.data.pixels import Pixels
from slimcv.data.sources import Listing, Sample
from slimcv.data.splitting import kept_aside, mixed
from slimcv.errors import SlimcvError
from slimcv.step import InputSpec

VAL_FRACTION = 0.2
"""What a source without a validation part of its own gives up for it."""

TUNING_FRACTION = 0.1
"""What is taken from the training pictures to decide by during a run."""

NAMED = 5
"""How many broken pictures a message names."""

log = logging.getLogger("slimcv")


@dataclass(frozen=True)
class BrokenPicture:
    """A picture that cannot be decoded and was therefore left out."""

    path: str
    reason: str


@dataclass(frozen=True, eq=False)
class Split:
    """Pictures with their labels, in a mixed order that depends on nothing but their names.

    The first few are therefore a fair sample of all. `labels` is int64 (n,), positions in the dataset's
    `classes`; `paths` names the pictures in the same order.
    """

    samples: tuple[Sample, ...]
    labels: np.ndarray
    decoded: Decoded
    classes: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.samples)

    @property
    def paths(self) -> tuple[str, ...]:
        """Where each picture is, or `train[3]` for one that a factory gave from memory."""
        return tuple(sample.path for sample in self.samples)

    def pixels(self, height: int, width: int, channels: int) -> Pixels:
        """All pictures as uint8 (n, height, width, channels), mapped from the cache and read when indexed.

        The first call for a size decodes every picture, on all cores (see slimcv.data.decoding.decode),
        unless the size was given to `load`; later ones cost nothing. Where there is no room for them,
        pictures are decoded whenever they are indexed. Pictures that became unreadable are replaced by
        others of their class, with a warning. Raises SlimcvError where these are too many or the cache
        cannot be written.
        """
        return self.decoded.pixels((height, width, channels))

    def check_outputs(self, outputs: int) -> None:
        """Raise SlimcvError unless a model with this many outputs has one for each class."""
        if outputs != len(self.classes):
            raise SlimcvError(
                f"the model has {outputs} outputs, the data {len(self.classes)} classes",
                f"give the data the model was trained on; its classes are {_listed(self.classes)}",
            )


@dataclass(frozen=True, eq=False)
class Dataset:
    """Three disjoint splits: `val` for the reported figures only, `tuning` taken from the training pictures.

    `broken` lists the pictures left out of all three; `fingerprint` is a SHA-256 of the names, sizes and
    times of the files (of the pixels for pictures in memory), the classes and the seed.
    """

    classes: tuple[str, ...]
    train: Split
    tuning: Split
    val: Split
    broken: tuple[BrokenPicture, ...]
    fingerprint: str

    def check_outputs(self, outputs: int) -> None:
        """See `Split.check_outputs`."""
        self.val.check_outputs(outputs)


def load(
    source: str,
    *,
    seed: int = 0,
    classes: tuple[str, ...] | None = None,
    input: InputSpec | None = None,
    cache: Path | None = None,
    cache_limit: int | None = None,
    keep: bool = True,
) -> Dataset:
    """List a source (see slimcv.data.sources.find), leave out its broken pictures, and split it.

    Pictures that the source does not keep for validation itself are split 80/20, and a tenth of the training
    pictures becomes the tuning split, both by a hash of their names and the seed, class by class. Every
    picture is decoded once to find the broken ones: at the size of `input`, if given, whose pixels are then
    ready, otherwise at the smallest. `classes` is the order of the model's outputs, by default the names
    sorted.

    `cache`, by default a folder of the user's cache, remembers pixels and broken pictures. It holds at most
    `cache_limit` bytes, by default slimcv.data.folder.LIMIT_BYTES, of which those longest unused make room
    for new ones. With `keep` false nothing outlives the process: pixels lie in nameless temporary files.

    Raises SlimcvError for a missing source, no pictures, fewer than two classes, a class without pictures,
    classes other than those given, pictures that are all broken, too few pictures to hold any back, or an
    unwritable cache.
    """
    folder = (default_folder() if cache is None else cache).absolute() if keep else None
    keeping = Keeping(folder, LIMIT_BYTES if cache_limit is None else cache_limit)
    listing = sources.find(source, keeping)
    order = _class_order(listing, classes, source)
    samples = (*listing.train, *(listing.val or ()))
    whole = Decoded(samples, keeping)
    reasons = whole.faults(None if input is None else (input.height, input.width, input.channels))
    broken = tuple(BrokenPicture(samples[index].path, reason) for index, reason in sorted(reasons.items()))
    _report(broken, len(samples), source)
    count = len(listing.train)
    train = [index for index in range(count) if index not in reasons]
    val = [index for index in range(count, len(samples)) if index not in reasons]
    labels = _labels(samples, order)
    keys = [sample.key for sample in samples]
    if listing.val is None:
        log.info("%s keeps no pictures for validation: a fifth of them is set aside", source)
        train, val = _parted(train, keys, labels, fraction=VAL_FRACTION, seed=seed, purpose="val")
    _require_pictures((samples[index] for index in train), order, source)
    train, tuning = _parted(train, keys, labels, fraction=TUNING_FRACTION, seed=seed, purpose="tuning")
    for part, purpose in ((val, "validation"), (tuning, "tuning")):
        if not part:
            raise SlimcvError(
                f"{source} has too few readable pictures to keep any aside for {purpose}",
                "give at least three pictures a class",
            )
    return Dataset(
        classes=order,
        train=_split(train, whole, labels, keeping, classes=order),
        tuning=_split(tuning, whole, labels, keeping, classes=order),
        val=_split(val, whole, labels, keeping, classes=order),
        broken=broken,
        fingerprint=_fingerprint(samples, count, order, seed),
    )


def _class_order(listing: Listing, given: tuple[str, ...] | None, source: str) -> tuple[str, ...]:
    """The classes in the order of the model's outputs, refused unless source and model agree on them."""
    if len(listing.classes) < 2:
        raise SlimcvError(
            f"{source} has only one class, '{listing.classes[0]}'",
            "classification needs two class folders or more",
        )
    if given is None or given == listing.classes:
        return listing.classes
    lacking, unknown = sorted(set(given) - set(listing.classes)), sorted(set(listing.classes) - set(given))
    differences = [f"the data lacks {_listed(lacking)}"] * bool(lacking)
    differences += [f"the model does not know {_listed(unknown)}"] * bool(unknown)
    if differences or len(given) != len(listing.classes):
        message = "; ".join(differences) or "the model names a class twice"
        raise SlimcvError(
            f"the classes of the model and of {source} differ: {message}",
            "rename the class folders, or correct the classes given with the model",
        )
    return given


def _report(broken: Sequence[BrokenPicture], count: int, source: str) -> None:
    if not broken:
        return
    named = [f"{picture.path} ({picture.reason})" for picture in broken]
    if len(broken) == count:
        raise SlimcvError(
            f"none of the {count} pictures in {source} can be read, the first is {named[0]}",
            "open one in a picture viewer; slimcv reads what Pillow reads, such as JPEG, PNG, WebP and BMP",
        )
    log.warning("%d of %d pictures cannot be read and are left out: %s", len(broken), count, _listed(named))


def _require_pictures(train: Iterable[Sample], order: Iterable[str], source: str) -> None:
    """A class without pictures is refused: leaving it out would give the other classes wrong labels."""
    present = {sample.class_name for sample in train}
    lacking = [name for name in order if name not in present]
    if lacking:
        raise SlimcvError(
            f"{source} has no readable training picture of {_listed(lacking)}",
            "add pictures to these class folders, or remove the folders if they are no classes",
        )


def _parted(
    indices: Sequence[int],
    keys: Sequence[str],
    labels: np.ndarray,
    *,
    fraction: float,
    seed: int,
    purpose: str,
) -> tuple[list[int], list[int]]:
    """Which of these pictures stay and which are kept aside."""
    chosen = np.asarray(indices, dtype=np.int64)
    aside = kept_aside(
        [keys[index] for index in indices], labels[chosen], fraction=fraction, seed=seed, purpose=purpose
    )
    return chosen[~aside].tolist(), chosen[aside].tolist()


def _split(
    indices: Sequence[int],
    whole: Decoded,
    labels: np.ndarray,
    keeping: Keeping,
    *,
    classes: tuple[str, ...],
) -> Split:
    order = mixed([whole.samples[index].key for index in indices])
    rows = np.array([indices[position] for position in order], dtype=np.int64)
    samples = tuple(whole.samples[row] for row in rows.tolist())
    return Split(samples, labels[rows], Decoded(samples, keeping, whole=(whole, rows)), classes)


def _labels(samples: Iterable[Sample], order: Sequence[str]) -> np.ndarray:
    positions = {name: position for position, name in enumerate(order)}
    return np.array([positions[sample.class_name] for sample in samples], dtype=np.int64)


def _fingerprint(samples: Sequence[Sample], train_count: int, order: Sequence[str], seed: int) -> str:
    digest = hashlib.sha256(repr((train_count, tuple(order), seed)).encode("utf-8", "surrogateescape"))
    for sample in samples:
        digest.update(
            f"\0{sample.key}\0{sample.class_name}\0{sample.identity}".encode("utf-8", "surrogateescape")
        )
    return digest.hexdigest()


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(names[:NAMED])
    return shown if len(names) <= NAMED else f"{shown} and {len(names) - NAMED} more"
