"""Which pictures are kept aside: by a seeded hash of their names, class by class, alike on every machine."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np


def kept_aside(
    keys: Sequence[str], labels: Sequence[int] | np.ndarray, *, fraction: float, seed: int, purpose: str
) -> np.ndarray:
    """A boolean mask, True for about `fraction` of every class.

    Within a class the pictures are ranked by the SHA-256 of purpose, seed and key, and the lowest ranks are
    kept aside: of two or more pictures at least one and never all, of a single one none. So what other
    classes hold has no influence, and a picture added to a class moves at most one other across the border.
    `purpose` makes splits of the same pictures independent of each other.
    """
    aside = np.zeros(len(keys), dtype=bool)
    members: dict[int, list[int]] = {}
    for index, label in enumerate(labels):
        members.setdefault(int(label), []).append(index)
    for indices in members.values():
        ranked = sorted(indices, key=lambda index: (_rank(keys[index], seed, purpose), index))
        count = max(1, round(fraction * len(ranked))) if len(ranked) > 1 else 0
        aside[ranked[: min(count, len(ranked) - 1)]] = True
    return aside


def mixed(keys: Sequence[str]) -> list[int]:
    """Positions of the keys in an order that mixes classes: the first few are a fair sample of all."""
    return sorted(range(len(keys)), key=lambda index: (_rank(keys[index], 0, "order"), index))


def _rank(key: str, seed: int, purpose: str) -> bytes:
    return hashlib.sha256(f"{purpose}\0{seed}\0{key}".encode("utf-8", "surrogateescape")).digest()
