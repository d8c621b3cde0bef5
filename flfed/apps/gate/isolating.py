"""A process without a network: an empty network namespace, and how to know that one is in it."""

from __future__ import annotations

import ctypes
import os
import socket
from pathlib import Path

NEW_USER, NEW_NET = 0x10000000, 0x40000000
"""CLONE_NEWUSER and CLONE_NEWNET (linux/sched.h); `os` has them from Python 3.12 on only."""
NO_NEW_PRIVILEGES, SET_DEATH_SIGNAL, GET_DEATH_SIGNAL = 38, 1, 2
"""PR_SET_NO_NEW_PRIVS, PR_SET_PDEATHSIG and PR_GET_PDEATHSIG (linux/prctl.h)."""
LOOPBACK = {"lo"}


def leave_network() -> str:
    """Move this process into an empty network namespace; return "" or why it still has a network.

    To be called before anything starts a thread: a thread would stay in the old namespace. As root
    the namespace is made directly, else inside a user namespace of this process alone. Where the
    kernel refuses, a process that has no interface but its own loopback (systemd's
    `PrivateNetwork=yes`, a container's `network_mode: none`) is as well off.
    """
    refused = _unshared()
    return refused if refused and set(interfaces()) - LOOPBACK else ""


def interfaces() -> list[str]:
    """Return the names of the network interfaces that this process sees.

    By reading a file: to ask the kernel takes a socket of a kind that the gate's unit forbids.
    """
    try:
        lines = Path("/proc/self/net/dev").read_text(encoding="ascii").splitlines()[2:]
    except OSError:
        return sorted(name for _, name in socket.if_nameindex())
    return sorted(line.partition(":")[0].strip() for line in lines)


def _unshared() -> str:
    """Return "" once this process is in a network namespace of its own, else why not."""
    try:
        threads = len(list(Path("/proc/self/task").iterdir()))
        library = ctypes.CDLL(None, use_errno=True)
        unshare = library.unshare
    except (OSError, AttributeError):
        return "this system has no network namespaces"
    if threads != 1:
        return "a thread was started before"
    user, group, root = os.getuid(), os.getgid(), os.geteuid() == 0
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
