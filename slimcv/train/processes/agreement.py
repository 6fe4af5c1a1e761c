"""Before the first order: all processes have the same pictures, and the same teacher."""

from __future__ import annotations

import hashlib
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from slimcv.data import Dataset, Split
from slimcv.data.sources import Sample
from slimcv.errors import SlimcvError
from slimcv.models import checkpoint
from slimcv.step import InputSpec, Variant
from slimcv.train.processes.group import Group

OPENING, PICTURES = "opening", "pictures"


@dataclass(frozen=True)
class Opening:
    """What rank 0 knows before it reads the pictures, so that all can read theirs at the same time.

    `source` is where rank 0 has its pictures, None where it has none; `input` the teacher's.
    """

    source: str | None
    classes: tuple[str, ...] | None
    input: InputSpec
    seed: int


def tell(group: Group, opening: Opening) -> None:
    """Open, as rank 0."""
    group.put(OPENING, asdict(opening))


def hear(group: Group) -> Opening:
    """How rank 0 opened."""
    values = group.get(OPENING)
    spec = values["input"] | {name: tuple(values["input"][name]) for name in ("mean", "std")}
    classes = None if values["classes"] is None else tuple(values["classes"])
    return Opening(values["source"], classes, InputSpec(**spec), values["seed"])


def agree(group: Group, data: Dataset) -> None:
    """Raise SlimcvError, in every process, unless all were given the same pictures under the same names.

    What the pictures hold is not compared, only their names, sizes and classes: times differ from machine to
    machine, and reading everything would take as long as decoding it.
    """
    group.put(PICTURES, described(data))
    first, *others = group.gather(PICTURES)
    for member, other in zip(group.members[1:], others, strict=True):
        if other == first:
            continue
        mine, theirs = (f"{each['train']} to train, {each['tuning']} to tune by" for each in (first, other))
        differs = "other names, sizes or classes" if mine == theirs else f"{theirs} against {mine}"
        raise SlimcvError(
            f"the pictures of {member} differ from those of {group.members[0]}: {differs}",
            "give every machine the same pictures under the same names; only --data may differ",
        )


def described(data: Dataset) -> dict[str, Any]:
    """What is compared of a data set."""
    digest = hashlib.sha256(repr(data.classes).encode("utf-8", "surrogateescape"))
    for split in (data.train, data.tuning):
        _describe(split, digest)
    return {"train": len(data.train), "tuning": len(data.tuning), "digest": digest.hexdigest()}


def _describe(split: Split, digest: hashlib._Hash) -> None:
    for sample in split.samples:
        line = f"\0{sample.key}\0{sample.class_name}\0{_contents(sample)}"
        digest.update(line.encode("utf-8", "surrogateescape"))


def _contents(sample: Sample) -> str:
    """What of a picture's identity is the same on another machine: a file's size, a hash of pixels."""
    first, colon, _ = sample.identity.partition(":")
    return first if not colon or isinstance(sample.picture, str) else ""


def send_variant(group: Group, variant: Variant) -> None:
    """Give the others a variant, as rank 0; its artifacts stay here."""
    group.send(packed(variant))


def receive_variant(group: Group) -> Variant:
    """The variant that rank 0 sends."""
    return unpacked(group.receive())


def packed(variant: Variant) -> bytes:
    """The bytes of the `.pt2` file that slimcv writes for a variant."""
    with tempfile.TemporaryDirectory(prefix="slimcv-") as folder:
        path = Path(folder) / "variant.pt2"
        checkpoint.save(variant, path)
        return path.read_bytes()


def unpacked(content: bytes) -> Variant:
    """The variant in such bytes."""
    with tempfile.TemporaryDirectory(prefix="slimcv-") as folder:
        path = Path(folder) / "variant.pt2"
        path.write_bytes(content)
        return checkpoint.read(path)
