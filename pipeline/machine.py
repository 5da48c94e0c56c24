"""How much memory this process may use: the machine's, or what its container or batch job was given."""

from collections.abc import Iterator
from pathlib import Path

import psutil

CGROUPS = Path("/sys/fs/cgroup")
OWN_CGROUPS = Path("/proc/self/cgroup")


def total_memory_mb() -> float:
    """Memory that could be used if nobody else used any."""
    limits = [limit for limit, _ in _limits()]
    return min([psutil.virtual_memory().total, *limits]) / 2**20


def free_memory_mb() -> float:
    """Memory that can be used now without pushing anybody out."""
    left = [limit - used for limit, used in _limits()]
    return max(0.0, min([psutil.virtual_memory().available, *left]) / 2**20)


def _limits() -> Iterator[tuple[int, int]]:
    """Limit and use in bytes of each control group that this process is in; caches that can be dropped are no use."""
    try:
        lines = OWN_CGROUPS.read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, own = line.split(":", 2)
        if controllers == "":
            root, names = CGROUPS, ("memory.max", "memory.current", "inactive_file")
        elif "memory" in controllers.split(","):
            root = CGROUPS / "memory"
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
        else:
            continue
        # Inside a container the path may name what is only to be seen from outside: its own group is then the root.
        for folder in dict.fromkeys([root / own.strip("/"), *(root / own.strip("/")).parents, root]):
            if root in (folder, *folder.parents):
                yield from _limit_of(folder, *names)


def _limit_of(folder: Path, limit_name: str, used_name: str, cache_name: str) -> Iterator[tuple[int, int]]:
    try:
        limit = (folder / limit_name).read_text().strip()
        used = int((folder / used_name).read_text())
        stat = (folder / "memory.stat").read_text().splitlines()
    except OSError:
        return
    if limit != "max":
        cache = next((int(line.split()[1]) for line in stat if line.split()[0] == cache_name), 0)
        yield int(limit), used - cache
