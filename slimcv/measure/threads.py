"""How many threads this process may use: its CPU affinity and the CPU quota of its container."""

import os
from collections.abc import Iterator
from pathlib import Path

_CGROUPS = Path("/sys/fs/cgroup")
_MEMBERSHIP = Path("/proc/self/cgroup")


def available(*, cgroups: Path = _CGROUPS, membership: Path = _MEMBERSHIP) -> int:
    """Threads that can really run at once, at least 1.

    The CPUs of the affinity mask, limited by the quota of the cgroup (version 1 or 2) and of every group
    above it. A quota of 1.5 CPUs counts as 1: a second thread would be stopped for half of every period.
    """
    quota = quota_cpus(cgroups=cgroups, membership=membership)
    allowed = _affinity()
    return max(1, allowed if quota is None else min(allowed, int(quota)))


def quota_cpus(*, cgroups: Path = _CGROUPS, membership: Path = _MEMBERSHIP) -> float | None:
    """The smallest CPU quota in force, in CPUs; None where there is none."""
    limits = [
        limit
        for folder in _folders(cgroups, membership)
        for limit in (_quota_v2(folder / "cpu.max"), _quota_v1(folder))
        if limit is not None
    ]
    return min(limits, default=None)


def _affinity() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _folders(cgroups: Path, membership: Path) -> Iterator[Path]:
    """Every folder that may limit this process, from its own group up to the root of each hierarchy."""
    for line in _text(membership).splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if controllers and "cpu" not in controllers.split(","):
            continue
        # Without a cgroup namespace the path is the host's and is missing here; the mount's root is ours.
        for root in _roots(cgroups, controllers):
            group = root / path.strip("/")
            yield from (folder for folder in (group, *group.parents) if folder.is_relative_to(root))


def _roots(cgroups: Path, controllers: str) -> tuple[Path, Path]:
    """Where a hierarchy may be mounted: version 2 has no controllers and stands aside beside version 1."""
    return (cgroups / controllers, cgroups / "cpu") if controllers else (cgroups, cgroups / "unified")


def _quota_v2(file: Path) -> float | None:
    """`cpu.max` holds "quota period" in microseconds, or "max period"."""
    fields = _text(file).split()
    if len(fields) != 2 or not all(field.isdigit() for field in fields) or int(fields[1]) == 0:
        return None
    return int(fields[0]) / int(fields[1])


def _quota_v1(folder: Path) -> float | None:
    """`cpu.cfs_quota_us` is -1 where there is no limit."""
    quota, period = _text(folder / "cpu.cfs_quota_us"), _text(folder / "cpu.cfs_period_us")
    if not quota.isdigit() or not period.isdigit() or int(period) == 0:
        return None
    return int(quota) / int(period)


def _text(file: Path) -> str:
    try:
        return file.read_text().strip()
    except OSError:
        return ""
