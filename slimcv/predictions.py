"""What original and result say to each picture of val/: `predictions.json` of a run."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from slimcv.errors import SlimcvError
from slimcv.writing import write_text

if TYPE_CHECKING:
    import numpy as np

    from slimcv.data import Split
    from slimcv.step import InputSpec

PREDICTIONS = "predictions.json"

LOST, WON = 8, 4
"""At most so many example pictures that are wrong now and were right, and the other way round."""

THUMBNAIL = 112
"""The longer side of an example picture, in pixels."""


def write(
    folder: Path,
    split: Split,
    *,
    input: InputSpec,
    classes: Sequence[str],
    original: Sequence[int],
    optimized: Sequence[int],
) -> None:
    """Write the class index that both gave for each picture of `split`, with small pictures of a few flips.

    `input` says how pictures are decoded. Raises OSError where the folder cannot be written.
    """
    labels = [int(label) for label in split.labels]
    pixels = split.pixels(input.height, input.width, input.channels)
    examples = [
        {"picture": at, "thumbnail": _thumbnail(pixels[at : at + 1][0])}
        for at in _telling(labels, original, optimized)
    ]
    values = {
        "schema_version": 1,
        "classes": list(classes),
        "pictures": list(split.paths),
        "labels": labels,
        "original": list(original),
        "optimized": list(optimized),
        "examples": examples,
    }
    write_text(folder / PREDICTIONS, json.dumps(values, ensure_ascii=False) + "\n")


def read(folder: Path) -> dict[str, Any] | None:
    """What `write` left in a run directory, or None. Raises SlimcvError where it cannot be read."""
    path = folder / PREDICTIONS
    if not path.is_file():
        return None
    hint = "remove it: the report then goes without classes and example pictures"
    try:
        values = json.loads(path.read_text("utf-8"))
    except OSError as error:
        raise SlimcvError(f"{path}: {error.strerror}", "see that it can be read") from error
    except ValueError as error:
        raise SlimcvError(f"{path}: cut short, or not JSON ({error})", hint) from error
    if not isinstance(values, dict):
        raise SlimcvError(f"{path}: not the answers of a run", hint)
    return values


def _telling(labels: Sequence[int], original: Sequence[int], optimized: Sequence[int]) -> list[int]:
    """Pictures whose answer turned wrong, then right; each kind of mistake once before any a second time."""
    lost: dict[tuple[int, int], list[int]] = {}
    won: dict[tuple[int, int], list[int]] = {}
    for at, (label, before, after) in enumerate(zip(labels, original, optimized, strict=True)):
        if before == label != after:
            lost.setdefault((label, after), []).append(at)
        elif before != label == after:
            won.setdefault((label, before), []).append(at)
    return [*_in_turns(lost, LOST), *_in_turns(won, WON)]


def _in_turns(kinds: dict[tuple[int, int], list[int]], most: int) -> list[int]:
    often = sorted(kinds.values(), key=len, reverse=True)
    rounds = max(map(len, often), default=0)
    return [pictures[turn] for turn in range(rounds) for pictures in often if turn < len(pictures)][:most]


def _thumbnail(pixels: np.ndarray) -> str:
    """A uint8 picture (height, width, channels) as a small JPEG in a data URI."""
    from PIL import Image

    picture = Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
    picture.thumbnail((THUMBNAIL, THUMBNAIL))
    stream = io.BytesIO()
    picture.save(stream, "JPEG", quality=75)
    return f"data:image/jpeg;base64,{base64.b64encode(stream.getvalue()).decode()}"
