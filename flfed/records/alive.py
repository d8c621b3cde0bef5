"""Which process writes a run, and whether it still lives: tells a running run from a dead one."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Writer:
    """The process that writes a run.

    Parameters
    ----------
    host : str
        Name of the machine.
    boot : str
        Identity of the machine's last start; "" where the system does not say.
    pid : int
        Number of the process.
    process : str
        Start of the process in clock ticks since boot, because numbers are used again; "" where
        the system does not say.
    """

    host: str
    boot: str
    pid: int
    process: str


def this_process() -> Writer:
    """Return the identity of the calling process."""
    pid = os.getpid()
    return Writer(socket.gethostname(), _boot(), pid, _start_of(pid))


def is_gone(writer: Writer) -> bool:
    """Return whether `writer` certainly ended; False where it ran on another machine.

    Examples
    --------
    >>> is_gone(this_process())
    False
    >>> is_gone(Writer("another-machine", "", 1, ""))
    False
    """
    if writer.host != socket.gethostname():
        return False
    if writer.boot != _boot():
        return True
    if not _exists(writer.pid):
        return True
    return bool(writer.process) and _start_of(writer.pid) != writer.process


def _exists(pid: int) -> bool:
    if os.name == "nt":  # signal 0 would end the process there
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _boot() -> str:
    file = Path("/proc/sys/kernel/random/boot_id")
    return file.read_text().strip() if file.exists() else ""


def _start_of(pid: int) -> str:
    """Return field 22 of `/proc/PID/stat`; the command in field 2 may hold spaces and brackets."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return ""
    return stat.rpartition(")")[2].split()[19]
