"""Which streams are coded together: like kinds, where that is smaller than apart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from slimcv.packed.choosing import estimated
from slimcv.packed.encodings import Stream

APART_BYTES = 1 << 17
"""Streams of this size have blocks of their own: others add nothing, and a reader drops them soon."""

_JOINT_BYTES = 1 << 19
_MIXED_BYTES = 1 << 14
_BLOCK_BYTES = 4.0
"""What a further block costs in the directory and in its own head."""


@dataclass
class Group:
    """Streams of one block, by their numbers in the order in which a reader takes them."""

    numbers: list[int]
    content: bytes
    cost: float = field(init=False)

    def __post_init__(self) -> None:
        self.cost = estimated(self.content) + _BLOCK_BYTES


def grouped(streams: Sequence[Stream]) -> list[list[int]]:
    """The numbers of the streams of each block."""
    apart, kinds = [], dict[str, list[Group]]()
    for number, stream in enumerate(streams):
        if len(stream.content) >= APART_BYTES:
            apart.append([number])
        else:
            kinds.setdefault(stream.kind, []).append(Group([number], stream.content))
    joined = [group for groups in kinds.values() for group in _in_turn(groups)]
    mixed = _mixed([group for group in joined if len(group.content) <= _MIXED_BYTES], streams)
    large = [group for group in joined if len(group.content) > _MIXED_BYTES]
    return sorted([*apart, *(group.numbers for group in (*large, *mixed))])


def _in_turn(groups: Sequence[Group]) -> list[Group]:
    """Each stream joins the block before it where both together are smaller."""
    found: list[Group] = []
    for group in groups:
        if found and len(found[-1].content) + len(group.content) <= _JOINT_BYTES:
            last = found[-1]
            both = Group(last.numbers + group.numbers, last.content + group.content)
            if both.cost <= last.cost + group.cost:
                found[-1] = both
                continue
        found.append(group)
    return found


def _mixed(groups: list[Group], streams: Sequence[Stream]) -> list[Group]:
    """Small blocks joined in pairs, whatever their kinds, as long as that is smaller."""
    gains: dict[tuple[int, int], tuple[float, Group]] = {}
    while True:
        for first in groups:
            for second in groups:
                pair = (first.numbers[0], second.numbers[0])
                if pair[0] < pair[1] and pair not in gains:
                    numbers = sorted(first.numbers + second.numbers)
                    both = Group(numbers, b"".join(streams[number].content for number in numbers))
                    gains[pair] = (first.cost + second.cost - both.cost, both)
        chosen = max(gains, key=lambda pair: gains[pair][0], default=None)
        if chosen is None or gains[chosen][0] <= 0:
            return groups
        both = gains[chosen][1]
        gains = {pair: gain for pair, gain in gains.items() if not set(pair) & set(chosen)}
        groups = [group for group in groups if group.numbers[0] not in chosen] + [both]
