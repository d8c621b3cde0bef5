"""Isolation of a process from the network.

It gives an empty network namespace, tells whether a process is in one, and takes every privilege to leave it.
"""

from __future__ import annotations

import ctypes
import os
import socket
import sys
from pathlib import Path

from flfed.deployment.processes.syscall_filter import NO_NEW_PRIVILEGES, refuse_calls

NEW_USER, NEW_NET = 0x10000000, 0x40000000
"""CLONE_NEWUSER and CLONE_NEWNET (linux/sched.h); `os` has them from Python 3.12 on only."""
SET_DEATH_SIGNAL, GET_DEATH_SIGNAL = 1, 2
"""PR_SET_PDEATHSIG and PR_GET_PDEATHSIG (linux/prctl.h)."""
SET_DUMPABLE = 4
"""PR_SET_DUMPABLE (linux/prctl.h)."""
CAPABILITY_VERSION = 0x20080522
FILE_CAPABILITIES = 0b11111
"""CAP_CHOWN, DAC_OVERRIDE, DAC_READ_SEARCH, FOWNER and FSETID: a gate that root runs still reads root's files."""
LOOPBACK = {"lo"}


def leave_network() -> str:
    """Move this process into an empty network namespace.

    Return "", or why it still has a network.

    To be called before anything starts a thread: a thread would stay in the old namespace. As root
    the namespace is made directly, else inside a user namespace of this process alone. Where the
    kernel refuses, a process that has no interface but its own loopback (systemd's
    `PrivateNetwork=yes`, a container's `network_mode: none`) is as well off.
    """
    refused = _unshared()
    return refused if refused and set(interfaces()) - LOOPBACK else ""


def drop_capabilities() -> None:
    """Give up all privileges but those over files.

    They are given up for good, also for what this process starts.

    A process in a user namespace of its own has all of them there, and root has all of them everywhere:
    with one it could write into the memory of a process that has a network.
    """
    try:
        library = ctypes.CDLL(None, use_errno=True)
        header = (ctypes.c_uint32 * 2)(CAPABILITY_VERSION, 0)  # 0: this process
        held = (ctypes.c_uint32 * 6)()  # twice effective, permitted, inheritable: calls of 64 bits in two halves
        if library.capget(header, held) == 0:
            left = [held[0] & FILE_CAPABILITIES, held[1] & FILE_CAPABILITIES, 0, 0, 0, 0]
            library.capset(header, (ctypes.c_uint32 * 6)(*left))
        library.prctl(NO_NEW_PRIVILEGES, 1, 0, 0, 0)
    except (OSError, AttributeError):
        return  # a system without them


def hide_memory() -> None:
    """Hide this process's memory from the same user.

    Other processes get no `ptrace` and no `/proc/…/mem`, and there is no core file.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(SET_DUMPABLE, 0, 0, 0, 0)


def interfaces() -> list[str]:
    """Return the names of the visible network interfaces.

    By reading a file: to ask the kernel takes a socket of a kind that the gate's unit forbids.
    """
    try:
        lines = Path("/proc/self/net/dev").read_text(encoding="ascii").splitlines()[2:]
    except OSError:
        return sorted(name for _, name in socket.if_nameindex())
    return sorted(line.partition(":")[0].strip() for line in lines)


def _unshared() -> str:
    """Move into a new network namespace.

    Return "" where it worked, else why it did not.
    """
    try:
        threads = len(list(Path("/proc/self/task").iterdir()))
        library = ctypes.CDLL(None, use_errno=True)
        unshare = library.unshare
    except (OSError, AttributeError):
        return "this system has no network namespaces"
    # Only the calling thread would move, and a user namespace needs a process of one thread.
    if threads != 1:
        return "a thread was started before"
    # Read before the change: afterwards the process has other numbers until the maps are written.
    user = os.getuid()
    group = os.getgid()
    root = os.geteuid() == 0
    signal = ctypes.c_int()
    library.prctl(GET_DEATH_SIGNAL, ctypes.byref(signal), 0, 0, 0)
    if unshare(NEW_NET if root else NEW_USER | NEW_NET) != 0:
        return f"the kernel did not let it have an empty network ({os.strerror(ctypes.get_errno())})"
    if not root:
        # Keep our own names inside, so that who owns a file still reads as who owns it.
        for name, text in (("setgroups", "deny"), ("uid_map", f"{user} {user} 1"), ("gid_map", f"{group} {group} 1")):
            Path("/proc/self", name).write_text(text, encoding="ascii")
    # A new user namespace forgets that this process is to die with its supervisor.
    library.prctl(SET_DEATH_SIGNAL, signal.value, 0, 0, 0)
    # No program that this process starts shall gain a privilege by its file.
    library.prctl(NO_NEW_PRIVILEGES, 1, 0, 0, 0)
    return ""


if __name__ == "__main__":
    print(leave_network())
    print(refuse_calls())
