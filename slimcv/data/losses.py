"""Pictures that become unreadable after they were checked: another of the class stands in, and it is said."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

from slimcv.data.rows import Fault
from slimcv.data.sources import Sample
from slimcv.errors import SlimcvError

LOST_SHARE = 0.1
"""Above this share of a split it is not a few pictures that were lost but the place they lay in."""

log = logging.getLogger("slimcv")


def stand_ins(samples: Sequence[Sample], lost: Mapping[int, Fault]) -> dict[int, int]:
    """For the position of each lost picture that of the next one of its class that is not lost.

    Raises SlimcvError where more than a tenth of the pictures were lost, or the last of a class.
    """
    if len(lost) > max(1, LOST_SHARE * len(samples)):
        raise _failure(samples, lost, f"{len(lost)} of {len(samples)} pictures cannot be read any more")
    found = {}
    for position in lost:
        name = samples[position].class_name
        others = (*range(position + 1, len(samples)), *range(position))
        other = next((at for at in others if at not in lost and samples[at].class_name == name), None)
        if other is None:
            raise _failure(samples, lost, f"no picture of {name} can be read any more")
        found[position] = other
    return found


def report(samples: Sequence[Sample], lost: Mapping[int, Fault], instead: Mapping[int, int]) -> None:
    """Warn of each picture that another stands in for."""
    for position, fault in lost.items():
        log.warning(
            "%s cannot be read any more (%s): %s of the same class stands in for it",
            samples[position].path,
            fault.reason,
            samples[instead[position]].path,
        )


def _failure(samples: Sequence[Sample], lost: Mapping[int, Fault], what: str) -> SlimcvError:
    first = min(lost)
    return SlimcvError(
        f"{what}, the first is {samples[first].path}: {lost[first].reason}",
        "bring the pictures back, then run the same command again: it goes on where it stopped",
    )
