"""The control groups of Linux that limit this process."""

from collections.abc import Iterator
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")
MEMBERSHIP = Path("/proc/self/cgroup")


def folders(controller: str, *, cgroups: Path, membership: Path) -> Iterator[Path]:
    """Every folder that may limit `controller` (cpu, memory) here, from the own group up to each root."""
    for line in text(membership).splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if controllers and controller not in controllers.split(","):
            continue
        # Version 2 has no controllers and stands aside beside version 1. Without a cgroup namespace the path
        # is the host's and is missing here; the mount's root is ours.
        for name in (controllers, controller) if controllers else ("", "unified"):
            root = cgroups / name
            group = root / path.strip("/")
            yield from (folder for folder in (group, *group.parents) if folder.is_relative_to(root))


def text(file: Path) -> str:
    """What a file of the kernel says, stripped; empty where there is none."""
    try:
        return file.read_text().strip()
    except OSError:
        return ""
