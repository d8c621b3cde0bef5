"""CPU seconds and memory of a process and its children, from /proc (Linux)."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

TICKS = os.sysconf("SC_CLK_TCK")
EVERY = 0.25
"""Seconds between two looks."""


class Seen(NamedTuple):
    """One look: when (`time.time`), CPU seconds so far, and MB held, memory shared by processes counted once."""

    at: float
    cpu: float
    mb: float


@dataclass
class Watched:
    """Measurements of a tree of processes."""

    seen: list[Seen] = field(default_factory=list)

    def peak_mb(self) -> float:
        """Return the most memory held at a time."""
        return max(look.mb for look in self.seen)

    def cpu_between(self, first: float, last: float) -> float:
        """Return the CPU seconds used between two times."""
        return self._cpu_at(last) - self._cpu_at(first)

    def _cpu_at(self, when: float) -> float:
        return min(self.seen, key=lambda look: abs(look.at - when)).cpu


@contextmanager
def watching(pid: int) -> Iterator[Watched]:
    """Look at a process and its descendants again and again while the block runs."""
    watched, over = Watched([look(pid)]), threading.Event()

    def watch() -> None:
        while not over.wait(EVERY):
            watched.seen.append(look(pid))

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield watched
    finally:
        over.set()
        thread.join()
        watched.seen.append(look(pid))


def look(pid: int) -> Seen:
    """Return the present use of the processes; one that ends meanwhile counts 0."""
    tree = descendants(pid)
    return Seen(time.time(), sum(map(_cpu, tree)), sum(map(_mb, tree)))


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


def _mb(pid: int) -> float:
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) / 1024
    return 0.0
