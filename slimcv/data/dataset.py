"""Labelled pictures in three splits: what a model is fine-tuned on, decided by, and reported on."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from slimcv.data import cache as caching
from slimcv.data import sources
from slimcv.data.sources import Listing, Sample
from slimcv.data.splitting import kept_aside, mixed
from slimcv.errors import SlimcvError

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
    cache: Path

    def __len__(self) -> int:
        return len(self.samples)

    @property
    def paths(self) -> tuple[str, ...]:
        """Where each picture is, or `train[3]` for one that a factory gave from memory."""
        return tuple(sample.path for sample in self.samples)

    def pixels(self, height: int, width: int, channels: int) -> np.ndarray:
        """All pictures as uint8 (n, height, width, channels), read-only and mapped from a file in the cache.

        The first call for a size decodes every picture, on all cores (see slimcv.data.decoding.decode); later
        ones cost nothing. Raises SlimcvError where the cache cannot be written or a picture has become
        unreadable.
        """
        return caching.pixels(self.samples, height, width, channels, folder=self.cache)


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
        """Raise SlimcvError unless a model with this many outputs has one for each class."""
        if outputs != len(self.classes):
            raise SlimcvError(
                f"the model has {outputs} outputs, the data {len(self.classes)} classes",
                f"give the data the model was trained on; its classes are {_listed(self.classes)}",
            )


def load(
    source: str, *, seed: int = 0, classes: tuple[str, ...] | None = None, cache: Path | None = None
) -> Dataset:
    """List a source (see slimcv.data.sources.find), leave out its broken pictures, and split it.

    Pictures that the source does not keep for validation itself are split 80/20, and a tenth of the training
    pictures becomes the tuning split, both by a hash of their names and the seed, class by class. Every
    picture is decoded once to find the broken ones; `cache`, by default a folder of the user's cache,
    remembers them. `classes` is the order of the model's outputs, by default the names sorted.

    Raises SlimcvError for a missing source, no pictures, fewer than two classes, a class without pictures,
    classes other than those given, pictures that are all broken, too few pictures to hold any back, or an
    unwritable cache.
    """
    folder = (caching.default_folder() if cache is None else cache).absolute()
    listing = sources.find(source)
    order = _class_order(listing, classes, source)
    samples = (*listing.train, *(listing.val or ()))
    reasons = caching.broken(samples, folder)
    broken = tuple(BrokenPicture(samples[index].path, reason) for index, reason in sorted(reasons.items()))
    _report(broken, len(samples), source)
    count = len(listing.train)
    train = tuple(sample for index, sample in enumerate(samples[:count]) if index not in reasons)
    val = tuple(sample for index, sample in enumerate(samples[count:], count) if index not in reasons)
    if listing.val is None:
        log.info("%s keeps no pictures for validation: a fifth of them is set aside", source)
        train, val = _parted(train, order, fraction=VAL_FRACTION, seed=seed, purpose="val")
    _require_pictures(train, order, source)
    train, tuning = _parted(train, order, fraction=TUNING_FRACTION, seed=seed, purpose="tuning")
    for part, purpose in ((val, "validation"), (tuning, "tuning")):
        if not part:
            raise SlimcvError(
                f"{source} has too few readable pictures to keep any aside for {purpose}",
                "give at least three pictures a class",
            )
    return Dataset(
        classes=order,
        train=_split(train, order, folder),
        tuning=_split(tuning, order, folder),
        val=_split(val, order, folder),
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
    samples: tuple[Sample, ...], order: Sequence[str], *, fraction: float, seed: int, purpose: str
) -> tuple[tuple[Sample, ...], tuple[Sample, ...]]:
    """What stays and what is kept aside."""
    keys = [sample.key for sample in samples]
    labels = _labels(samples, order)
    aside = kept_aside(keys, labels, fraction=fraction, seed=seed, purpose=purpose)
    stays = tuple(sample for sample, chosen in zip(samples, aside, strict=True) if not chosen)
    return stays, tuple(sample for sample, chosen in zip(samples, aside, strict=True) if chosen)


def _split(samples: Sequence[Sample], order: Sequence[str], folder: Path) -> Split:
    shuffled = tuple(samples[index] for index in mixed([sample.key for sample in samples]))
    return Split(shuffled, _labels(shuffled, order), folder)


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
