"""CPU seconds of a process and its children, from /proc (Linux)."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")


def cpu_seconds(pid: int) -> float:
    """Return the CPU seconds of a process and its descendants so far; one that ends meanwhile counts 0."""
    return sum(map(_cpu, descendants(pid)))


def descendants(pid: int) -> list[int]:
    """Return the id of a process and of all that it started and that those started."""
    parents: dict[int, list[int]] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            parents.setdefault(int(_fields(path)[1]), []).append(int(path.parent.name))
    found, left = [], [pid]
    while left:
        found.append(left.pop())
        left += parents.get(found[-1], [])
    return found


def _fields(stat: Path) -> list[str]:
    """Return the fields of a stat file from the state on: a command's name may hold spaces."""
    return stat.read_text().rpartition(")")[2].split()


def _cpu(pid: int) -> float:
    with suppress(OSError):
        # utime, stime, and those of ended children
        return sum(map(int, _fields(Path(f"/proc/{pid}/stat"))[11:15])) / TICKS
    return 0.0
