"""How many threads this process may use: its CPU affinity and the CPU quota of its container."""

import os
from pathlib import Path

from slimcv.measure.cgroups import CGROUPS, MEMBERSHIP, folders, text


def available(*, cgroups: Path = CGROUPS, membership: Path = MEMBERSHIP) -> int:
    """Threads that can really run at once, at least 1.

    The CPUs of the affinity mask, limited by the quota of the cgroup (version 1 or 2) and of every group
    above it. A quota of 1.5 CPUs counts as 1: a second thread would be stopped for half of every period.
    """
    quota = quota_cpus(cgroups=cgroups, membership=membership)
    allowed = _affinity()
    return max(1, allowed if quota is None else min(allowed, int(quota)))


def quota_cpus(*, cgroups: Path = CGROUPS, membership: Path = MEMBERSHIP) -> float | None:
    """The smallest CPU quota in force, in CPUs; None where there is none."""
    limits = [
        limit
        for folder in folders("cpu", cgroups=cgroups, membership=membership)
        for limit in (_quota_v2(folder / "cpu.max"), _quota_v1(folder))
        if limit is not None
    ]
    return min(limits, default=None)


def _affinity() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _quota_v2(file: Path) -> float | None:
    """`cpu.max` holds "quota period" in microseconds, or "max period"."""
    fields = text(file).split()
    if len(fields) != 2 or not all(field.isdigit() for field in fields) or int(fields[1]) == 0:
        return None
    return int(fields[0]) / int(fields[1])


def _quota_v1(folder: Path) -> float | None:
    """`cpu.cfs_quota_us` is -1 where there is no limit."""
    quota, period = text(folder / "cpu.cfs_quota_us"), text(folder / "cpu.cfs_period_us")
    if not quota.isdigit() or not period.isdigit() or int(period) == 0:
        return None
    return int(quota) / int(period)
