"""Numbers that are searched in files and in the memory of processes, as they may stand there."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

import numpy as np

CHUNK = 1 << 24
"""Bytes that are searched at once."""
OVERLAP = 64
"""Bytes that a chunk has of the one before: more than a number takes."""
DIGITS = 12
"""Digits by which a number in decimal text is known."""


class Numbers:
    """Numbers to look for.

    They are known by the first six of their bytes, so that another order of a sum's terms makes no other number.

    Parameters
    ----------
    values : mapping of name to array
        Of float64, or of whole numbers of 64 bits. The names are for what `found` returns.
    """

    def __init__(self, values: Mapping[str, np.ndarray]) -> None:
        self.names: dict[int, str] = {}
        self.texts: dict[bytes, str] = {}
        for name, array in values.items():
            for number in array.ravel():
                self.names[int(number.view(np.uint64)) >> 16] = name
                if array.dtype.kind == "f":
                    self.texts[f"{abs(number):.15g}"[:DIGITS].encode()] = f"{name} as text"
        self.high = np.array(sorted(self.names), np.uint64)
        # Nearly all words are known as others by their first two bytes.
        self.begins = np.zeros(1 << 16, dtype=bool)
        self.begins[self.high >> np.uint64(32)] = True

    def found(self, content: bytes) -> set[str]:
        """Return the names of the numbers in some bytes, wherever they begin, or as text."""
        names = {name for text, name in self.texts.items() if text in content}
        for start in range(min(8, len(content) - 7)):
            words = np.frombuffer(content, np.uint64, (len(content) - start) // 8, start)
            words = words[self.begins[words >> np.uint64(48)]]
            high = np.unique(words >> np.uint64(16))
            names |= {self.names[int(one)] for one in high[np.isin(high, self.high)]}
        return names

    def in_file(self, path: Path) -> set[str]:
        """Return the names of the numbers in a file."""
        content = path.read_bytes()
        return set().union(*(self.found(content[at : at + CHUNK + OVERLAP]) for at in range(0, len(content), CHUNK)))

    def in_process(self, pid: int) -> set[str]:
        """Return the names of the numbers in the memory that a process writes to."""
        return set().union(*(self.found(chunk) for chunk in _memory_of(pid)))


def _memory_of(pid: int) -> Iterator[bytes]:
    regions = []
    for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
        span, rights, *_ = line.split()
        if rights.startswith("rw"):
            regions.append([int(end, 16) for end in span.split("-")])
    with open(f"/proc/{pid}/mem", "rb", buffering=0) as memory:
        for start, end in regions:
            for at in range(start, end, CHUNK):
                # Memory that was given back since, or that no process may read.
                with suppress(OSError, ValueError):
                    memory.seek(at)
                    content = memory.read(min(CHUNK + OVERLAP, end - at))
                    # Most of it was never written to.
                    if content.strip(bytes(1)):
                        yield content


def with_descendants(pid: int) -> list[int]:
    """Return a process and all that it started, and these in turn."""
    pids = [pid]
    for children in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in children.read_text().split():
            pids += with_descendants(int(child))
    return pids
