"""Limits that a container or a batch system sets by Linux's control groups, version 1 or 2.  No torch here.

Files and meanings: the kernel's Documentation/admin-guide/cgroup-v2.rst (cpu.max, memory.max) and
scheduler/sched-bwc.rst, cgroup-v1/memory.rst (cpu.cfs_quota_us, memory.limit_in_bytes).
"""

from collections.abc import Callable, Iterator
from pathlib import Path

_NO_LIMIT = 1 << 60
"""Version 1 writes a number near 2^63 where there is none."""


def cpu_limit(root: Path = Path("/")) -> float | None:
    """Return how many processors' time this process may use, as Kubernetes limits it; None without a limit.

    Args:
        root: of the file system.
    """

    def of_group(group: Path) -> float | None:
        words = _words(group / "cpu.max") or _words(group / "cpu.cfs_quota_us") + _words(group / "cpu.cfs_period_us")
        if len(words) != 2 or not all(word.isdecimal() for word in words) or int(words[1]) == 0:
            return None  # max, or -1
        return int(words[0]) / int(words[1])

    return _least("cpu", of_group, root)


def memory_limit(root: Path = Path("/")) -> int | None:
    """Return how many bytes of memory this process's group may use; None without a limit.

    Args:
        root: of the file system.
    """

    def of_group(group: Path) -> float | None:
        words = _words(group / "memory.max") or _words(group / "memory.limit_in_bytes")
        return int(words[0]) if words and words[0].isdecimal() and int(words[0]) < _NO_LIMIT else None

    found = _least("memory", of_group, root)
    return None if found is None else int(found)


def _least(controller: str, limit: Callable[[Path], float | None], root: Path) -> float | None:
    """Return the least limit of this process's group and those around it."""
    found = [value for group in _groups(controller, root) if (value := limit(group)) is not None]
    return min(found, default=None)


def _groups(controller: str, root: Path) -> Iterator[Path]:
    """Yield the folders of this process's group, from its own to the outermost that can be seen."""
    mounted = root / "sys/fs/cgroup"
    for line in _lines(root / "proc/self/cgroup"):
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if controllers == "":
            tops = [mounted, mounted / "unified"]
        elif controller in controllers.split(","):
            tops = [mounted / controller, mounted / controllers]
        else:
            continue
        parts = [part for part in path.split("/") if part not in ("", "..")]
        for top in tops:
            for depth in range(len(parts), -1, -1):
                yield top.joinpath(*parts[:depth])


def _words(path: Path) -> list[str]:
    return " ".join(_lines(path)).split()


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except OSError:
        return []
