"""A few pictures of a training split, decoded through the cache as a training does it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from statistics import median
from time import perf_counter

import numpy as np

from slimcv.data import Split
from slimcv.data.batches import gather
from slimcv.data.cache import Decoded
from slimcv.data.folder import Keeping
from slimcv.step import InputSpec

DECODING_SECONDS = 4.0
"""How long decoding the sample may take."""

_FIRST = 8
_READINGS = 5


@dataclass(frozen=True)
class Sample:
    """Part of a split, in the cache by now; `decode_ms_each` is what a picture took to get there."""

    split: Split
    decode_ms_each: float

    def read_ms(self, input: InputSpec, batch: int) -> float:
        """Milliseconds to read a batch of pictures from the cache."""
        pixels = self.split.pixels(input.height, input.width, input.channels)
        random = np.random.default_rng(0)
        times = []
        for _ in range(_READINGS):
            index = random.permutation(len(self.split))[:batch]
            begun = perf_counter()
            gather(pixels, index)
            times.append(1000 * (perf_counter() - begun))
        return median(times)


def take(split: Split, input: InputSpec, *, most: int) -> Sample:
    """Up to `most` pictures of `split`, fewer where decoding them would take too long.

    They are decoded on all cores, into a cache that goes with this process.
    """
    few = _apart(split, _FIRST)
    seconds_each = _decode(few, input) / len(few)
    count = min(most, len(split), max(_FIRST, int(DECODING_SECONDS / seconds_each)))
    if count <= len(few):
        return Sample(few, 1000 * seconds_each)
    more = _apart(split, count)
    return Sample(more, 1000 * _decode(more, input) / len(more))


def part(whole: Split, count: int) -> Split:
    """The first pictures of a split, decoded with it."""
    samples = whole.samples[:count]
    decoded = Decoded(samples, Keeping(None), whole=(whole.decoded, np.arange(count)))
    return replace(whole, samples=samples, labels=whole.labels[:count], decoded=decoded)


def _apart(split: Split, count: int) -> Split:
    """The first pictures of a split, to be decoded whether they were before or not."""
    samples = split.samples[:count]
    decoded = Decoded(samples, Keeping(None))
    return replace(split, samples=samples, labels=split.labels[:count], decoded=decoded)


def _decode(split: Split, input: InputSpec) -> float:
    """Seconds until every picture was asked for once."""
    begun = perf_counter()
    np.asarray(split.pixels(input.height, input.width, input.channels)).sum(dtype=np.int64)
    return perf_counter() - begun
