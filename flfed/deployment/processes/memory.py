"""Memory limits of the gate's process.

A table that asks for more ends the gate, or its message, and not the machine.
"""

from __future__ import annotations

import os
import re
import resource

from flfed.errors import UsageError

VARIABLE = "FLFED_GATE_MEMORY"
"""Of the gate's process: bytes, as its supervisor says."""
OPEN_FILES = 1024
UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
SIZE = re.compile(r"([0-9]{1,15})([KMGT]?)", re.IGNORECASE)
LEAST = 512 << 20
"""Below this a gate does not even load what it computes with."""


def bytes_of(size: str) -> int:
    """Return a size such as "4G" in bytes.

    "" is half of this machine's memory.

    Raises
    ------
    UsageError
        If it is not one, or less than a gate needs.

    Examples
    --------
    >>> bytes_of("4G"), bytes_of("700m"), bytes_of("600000000")
    (4294967296, 734003200, 600000000)
    """
    if not size:
        return max(half_of_machine(), LEAST)
    found = SIZE.fullmatch(size)
    if found is None:
        raise UsageError(f"--memory {size!r}: is not a size; write for example 4G or 700M")
    count = int(found[1]) * UNITS[found[2].upper()]
    if count < LEAST:
        raise UsageError(f"--memory {size!r}: is less than a gate needs; the least is {LEAST >> 20}M")
    return count


def half_of_machine() -> int:
    """Return half of this machine's memory in bytes."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2


def limit_process() -> int:
    """Limit memory and open files of this process.

    The limits are for good, and also for what it starts. Return the bytes.

    The memory is RLIMIT_DATA: what is the process's own and may be written. Beyond it an allocation
    fails, which Python says as `MemoryError`.
    """
    count = int(os.environ.get(VARIABLE, "0")) or bytes_of("")
    limits = {resource.RLIMIT_DATA: count, resource.RLIMIT_NOFILE: OPEN_FILES}
    for kind, most in limits.items():
        # A limit that the system sets lower stays: it could not be raised.
        hard = resource.getrlimit(kind)[1]
        limits[kind] = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(kind, (limits[kind], limits[kind]))
    return limits[resource.RLIMIT_DATA]
