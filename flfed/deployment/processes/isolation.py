"""Isolation of the gate's process: no network, and few system calls.

The filter is a seccomp filter, written without a package and loaded without root. It sees a call's number and its
arguments as numbers, never the memory behind a pointer. So it cannot check a socket's path, and `connect` is refused
altogether; connections to the node come from another process (`connector.py`).
"""

from __future__ import annotations

import ctypes
import errno
import os
import socket
import struct
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path

from flfed.words import render

NO_NEW_PRIVILEGES = 38
SET_SECCOMP = 22
MODE_FILTER = 2
"""PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP (linux/prctl.h) and SECCOMP_MODE_FILTER (linux/seccomp.h)."""
ALL_THREADS = 1
"""SECCOMP_SET_MODE_FILTER, and SECCOMP_FILTER_FLAG_TSYNC; both are 1."""
LOAD = 0x20
EQUAL = 0x15
GREATER = 0x25
ANY_BIT = 0x45
RETURN = 0x06
"""BPF_LD|W|ABS, and of BPF_JMP the kinds JEQ, JGT and JSET, each with a constant; BPF_RET|K (linux/bpf_common.h)."""
ALLOW = 0x7FFF0000
FAIL = 0x00050000
"""SECCOMP_RET_ALLOW, and SECCOMP_RET_ERRNO with the error's number in its low half."""
NUMBER = 0
ARCHITECTURE = 4
ARGUMENTS = 16
"""Places in `struct seccomp_data`: the call's number, the architecture, and six arguments of eight bytes."""
NEWEST = 462
"""Calls with a higher number are newer than this list; those of x32 are higher, too. Answered ENOSYS."""
AF_UNIX = 1
SOCK_STREAM = 1
SOCK_TYPE = 0xF
NEW_NAMESPACE = 0x7E020000
"""Every CLONE_NEW… flag of `clone` (linux/sched.h)."""
TIOCSTI = 0x5412
TIOCLINUX = 0x541C
"""Requests of `ioctl` that type into another user's terminal."""

_CALLS: dict[str, dict[str, list[int]]] = tomllib.loads(Path(__file__).with_suffix(".toml").read_text("utf-8"))
REFUSED = _CALLS["refused"]
"""Refused whatever the arguments, with EPERM: the numbers on x86-64 and on arm64."""
CONNECT = _CALLS["connect"]
LOOKED_AT = _CALLS["looked-at"]
"""Calls of which only some arguments are refused, and `seccomp` itself, which is allowed."""

Line = tuple[int, int, int, int]
"""One instruction: its code, the jumps where it holds and where not, and its constant."""


@dataclass(frozen=True)
class Machine:
    """One kind of processor with a filter.

    Attributes
    ----------
    audit : int
        AUDIT_ARCH_…: a call that comes by another way (32 bits) has other numbers.
    column : int
        Which of a call's two numbers is its own.
    """

    audit: int
    column: int


MACHINES = {"x86_64": Machine(0xC000003E, 0), "aarch64": Machine(0xC00000B7, 1)}


def refuse_calls(*, connecting: bool = False) -> str:
    """Refuse system calls that lead out.

    They are refused to this process and its children. Return "", or why that failed.

    Parameters
    ----------
    connecting : bool
        Leave `connect` to Unix sockets: for the one process that fetches connections (`connector.py`).

    Guarantee: after "" no thread of this process, and no program that it starts, can take the filter off.
    """
    machine = MACHINES.get(os.uname().machine)
    if sys.platform != "linux" or machine is None:
        return render("processes.isolation.unlisted", system=os.uname().sysname, machine=os.uname().machine)
    # The connector alone may connect, since it does nothing but fetch connections.
    refused = REFUSED if connecting else {**REFUSED, **CONNECT}
    code = b"".join(struct.pack("=HBBI", *line) for line in program(machine, refused))
    code_buffer = ctypes.create_string_buffer(code, len(code))
    bpf = ctypes.create_string_buffer(struct.pack("HxxxxxxQ", len(code) // 8, ctypes.addressof(code_buffer)))
    library = ctypes.CDLL(None, use_errno=True)
    library.prctl(NO_NEW_PRIVILEGES, 1, 0, 0, 0)
    if library.syscall(LOOKED_AT["seccomp"][machine.column], 1, ALL_THREADS, bpf) == 0:
        return ""
    # systemd's own filter may allow `prctl`, which sets one for the calling thread.
    if len(os.listdir("/proc/self/task")) == 1 and library.prctl(SET_SECCOMP, MODE_FILTER, bpf, 0, 0) == 0:
        return ""
    return render("processes.isolation.filter", why=os.strerror(ctypes.get_errno()))


def program(machine: Machine, refused: dict[str, list[int]]) -> list[Line]:
    """Return the instructions of the filter.

    They check the architecture, then each refused call, then the calls with checked arguments.
    """
    denied = _fail(errno.EPERM)
    unknown = _fail(errno.ENOSYS)
    own = {name: numbers[machine.column] for name, numbers in LOOKED_AT.items()}
    lines = [
        (LOAD, 0, 0, ARCHITECTURE),
        (EQUAL, 1, 0, machine.audit),
        denied,
        (LOAD, 0, 0, NUMBER),
        (GREATER, 0, 1, NEWEST),
        unknown,
    ]
    for numbers in refused.values():
        lines += [(EQUAL, 0, 1, numbers[machine.column]), denied]
    # The flags of `clone3` are behind a pointer; libc then uses `clone`.
    lines += _block(own["clone3"], [unknown])
    lines += _block(own["clone"], [_argument(0), (ANY_BIT, 0, 1, NEW_NAMESPACE), denied])
    # A datagram socket needs no `connect`: each datagram may name a path.
    stream = [(0x54, 0, 0, SOCK_TYPE), (EQUAL, 1, 0, SOCK_STREAM), denied]  # BPF_ALU|AND|K
    unix = [_argument(0), (EQUAL, 1, 0, AF_UNIX), _fail(errno.EAFNOSUPPORT), _argument(1), *stream]
    lines += _block(own["socket"], unix) + _block(own["socketpair"], unix)
    anywhere = [(EQUAL, 1, 0, 0), denied]
    lines += _block(own["sendto"], [_argument(4), *anywhere, _argument(4, high=True), *anywhere])
    typed = [_argument(1), (EQUAL, 1, 0, TIOCSTI), (EQUAL, 0, 1, TIOCLINUX), denied]
    return [*lines, *_block(own["ioctl"], typed), (RETURN, 0, 0, ALLOW)]


def _block(number: int, lines: list[Line]) -> list[Line]:
    """Return instructions for one call alone.

    A call that none of them refuses is allowed.
    """
    return [(EQUAL, 0, len(lines) + 1, number), *lines, (RETURN, 0, 0, ALLOW)]


def _argument(place: int, *, high: bool = False) -> Line:
    """Return the instruction that loads half an argument.

    It is the lower half, or with `high` the higher one; both machines put the lower first.
    """
    return (LOAD, 0, 0, ARGUMENTS + 8 * place + 4 * high)


def _fail(number: int) -> Line:
    return (RETURN, 0, 0, FAIL | number)


NEW_USER = 0x10000000
NEW_NET = 0x40000000
"""CLONE_NEWUSER and CLONE_NEWNET (linux/sched.h); `os` has them only from Python 3.12 on."""
SET_DEATH_SIGNAL = 1
GET_DEATH_SIGNAL = 2
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

    Call it before anything starts a thread: a thread would stay in the old namespace. As root the namespace is made
    directly, else inside a user namespace of this process alone. The kernel may refuse. Then a process whose only
    interface is its own loopback (systemd's `PrivateNetwork=yes`, a container's `network_mode: none`) is as well off.
    """
    refused = _unshared()
    return refused if refused and set(interfaces()) - LOOPBACK else ""


def drop_capabilities() -> None:
    """Give up all privileges but those over files.

    They are given up for good, also for child processes.

    A process in its own user namespace has all privileges there, and root has all of them everywhere. With one of
    them it could write into the memory of a process that has a network.
    """
    try:
        library = ctypes.CDLL(None, use_errno=True)
        header = (ctypes.c_uint32 * 2)(CAPABILITY_VERSION, 0)  # 0: this process
        # Twice effective, permitted, inheritable: calls of 64 bits in two halves.
        capabilities = (ctypes.c_uint32 * 6)()
        if library.capget(header, capabilities) == 0:
            left = [capabilities[0] & FILE_CAPABILITIES, capabilities[1] & FILE_CAPABILITIES, 0, 0, 0, 0]
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

    They are read from a file: a request to the kernel takes a socket of a kind that the gate's unit forbids.
    """
    try:
        lines = Path("/proc/self/net/dev").read_text(encoding="ascii").splitlines()[2:]
    except OSError:
        return sorted(name for _, name in socket.if_nameindex())
    return sorted(line.partition(":")[0].strip() for line in lines)


def _unshared() -> str:
    """Move into a new network namespace.

    Return "" where that worked, else why it failed.
    """
    try:
        threads = len(list(Path("/proc/self/task").iterdir()))
        library = ctypes.CDLL(None, use_errno=True)
        unshare = library.unshare
    except (OSError, AttributeError):
        return render("processes.isolation.spaceless")
    # Only the calling thread would move, and a user namespace needs a process of one thread.
    if threads != 1:
        return render("processes.isolation.threaded")
    # Read before the change: afterwards the process has other numbers until the maps are written.
    user = os.getuid()
    group = os.getgid()
    root = os.geteuid() == 0
    signal = ctypes.c_int()
    library.prctl(GET_DEATH_SIGNAL, ctypes.byref(signal), 0, 0, 0)
    spaces = NEW_NET if root else NEW_USER | NEW_NET
    if unshare(spaces) != 0:
        return render("processes.isolation.network", why=os.strerror(ctypes.get_errno()))
    if not root:
        # Keep the same names inside, so that the owners of files read as before.
        for name, text in (("setgroups", "deny"), ("uid_map", f"{user} {user} 1"), ("gid_map", f"{group} {group} 1")):
            Path("/proc/self", name).write_text(text, encoding="ascii")
    # In a new user namespace the signal for the supervisor's death is lost, so it is set again.
    library.prctl(SET_DEATH_SIGNAL, signal.value, 0, 0, 0)
    # No program that this process starts shall gain a privilege by its file.
    library.prctl(NO_NEW_PRIVILEGES, 1, 0, 0, 0)
    return ""


if __name__ == "__main__":
    print(leave_network())
    print(refuse_calls())
