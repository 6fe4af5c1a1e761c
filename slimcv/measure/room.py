"""Memory that this process may still take: what the machine has free, within what its container may have."""

from collections.abc import Iterator
from pathlib import Path

from slimcv.measure.cgroups import CGROUPS, MEMBERSHIP, folders, text

_MEMINFO = Path("/proc/meminfo")

_NO_LIMIT = 2**60
"""Version 1 of cgroups writes a number near 2^63 where there is no limit."""

_RECLAIMABLE = ("inactive_file", "total_inactive_file")
"""Pages of files that were read and not written: the kernel counts them as used and gives them up at once."""


def free_bytes(
    *, meminfo: Path = _MEMINFO, cgroups: Path = CGROUPS, membership: Path = MEMBERSHIP
) -> int | None:
    """What is left on the machine and in every control group above this process; None where nobody tells."""
    left = [limit - used for limit, used in _groups(cgroups, membership)]
    available = available_bytes(meminfo)
    left += [] if available is None else [available]
    return max(0, min(left)) if left else None


def available_bytes(meminfo: Path = _MEMINFO) -> int | None:
    """What programs may still take of the machine without swapping, as the kernel estimates it."""
    for line in text(meminfo).splitlines():
        name, _, value = line.partition(":")
        if name == "MemAvailable":
            return 1024 * int(value.split()[0])
    return None


def limit_bytes(*, cgroups: Path = CGROUPS, membership: Path = MEMBERSHIP) -> int | None:
    """The smallest memory limit of this process's control group (version 1 or 2) and of those above it."""
    return min((limit for limit, _ in _groups(cgroups, membership)), default=None)


def _groups(cgroups: Path, membership: Path) -> Iterator[tuple[int, int]]:
    """Limit and use of each group that has a limit."""
    for group in folders("memory", cgroups=cgroups, membership=membership):
        for limit, used in (
            ("memory.max", "memory.current"),
            ("memory.limit_in_bytes", "memory.usage_in_bytes"),
        ):
            bound, taken = text(group / limit), text(group / used)
            if bound.isdigit() and int(bound) < _NO_LIMIT:
                yield int(bound), (int(taken) if taken.isdigit() else 0) - _reclaimable(group)


def _reclaimable(group: Path) -> int:
    fields = dict(line.split(maxsplit=1) for line in text(group / "memory.stat").splitlines() if " " in line)
    return max((int(fields[name]) for name in _RECLAIMABLE if name in fields), default=0)
