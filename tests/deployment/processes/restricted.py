"""Become a command under what a unit of the gate does to it; systemd is not running here.

`restricted.py UNIT COMMAND…`. Of the unit's file: `SystemCallFilter` with the groups that systemd knows, compiled
by libseccomp as systemd does it; `RestrictAddressFamilies=AF_UNIX`, `RestrictNamespaces`, `PrivateNetwork`,
`NoNewPrivileges`, and no capability.
"""

import ctypes
import os
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

ALLOW, FAIL = 0x7FFF0000, 0x00050000
DIFFERENT, MASKED = 1, 7  # SCMP_CMP_NE, SCMP_CMP_MASKED_EQ
NEW_NAMESPACE = 0x7E020000


class Compared(ctypes.Structure):
    """`struct scmp_arg_cmp`."""

    _fields_ = [("argument", ctypes.c_uint), ("how", ctypes.c_int), ("one", ctypes.c_uint64), ("two", ctypes.c_uint64)]


@cache
def calls(group: str) -> frozenset[str]:
    """Return the system calls of a group such as `@system-service`."""
    words = ["systemd-analyze", "syscall-filter", group]
    lines = subprocess.run(words, capture_output=True, text=True, check=True).stdout.splitlines()[1:]
    return members([name for line in lines if (name := line.strip()) and not name.startswith("#")])


def members(names: list[str]) -> frozenset[str]:
    return frozenset(call for name in names for call in (calls(name) if name.startswith("@") else [name]))


def allowed(unit: str) -> frozenset[str]:
    """Return the system calls that a unit's `SystemCallFilter` lines leave."""
    left: frozenset[str] = frozenset()
    for line in re.findall("(?m)^SystemCallFilter=(.*)$", unit):
        names = members(line.removeprefix("~").split())
        left = left - names if line.startswith("~") else left | names
    return left


def restrict(unit: str) -> None:
    """Load the unit's filter into this process."""
    names = sorted(allowed(unit) | {"capset"})  # capset: for what follows here; systemd does it before
    library = ctypes.CDLL("libseccomp.so.2")
    library.seccomp_init.restype = ctypes.c_void_p
    context = ctypes.c_void_p(library.seccomp_init(FAIL | 1))
    library.seccomp_attr_set(context, 2, FAIL | 1)  # SCMP_FLTATR_ACT_BADARCH: no thread is to die of it

    def rule(action: int, name: str, *compared: Compared) -> None:
        number = library.seccomp_syscall_resolve_name(name.encode())
        if number >= 0:
            given = (Compared * len(compared))(*compared)
            if library.seccomp_rule_add_array(context, action, number, len(compared), given) != 0:
                sys.exit(f"no rule for {name}")

    for name in names:
        if name in ("socket", "socketpair"):
            rule(FAIL | 97, name, Compared(0, DIFFERENT, 1, 0))
            rule(ALLOW, name, Compared(0, 4, 1, 0))
        elif name == "clone":
            rule(ALLOW, name, Compared(0, MASKED, NEW_NAMESPACE, 0))
        elif name == "clone3":
            rule(FAIL | 38, name)
        elif name not in ("unshare", "setns"):
            rule(ALLOW, name)
    if library.seccomp_load(context) != 0:
        sys.exit("seccomp failed")


if __name__ == "__main__":
    text = Path(sys.argv[1]).read_text(encoding="utf-8")
    library = ctypes.CDLL(None, use_errno=True)
    if library.unshare(0x40000000) != 0:
        sys.exit("unshare failed")
    for capability in range(64):
        library.prctl(24, capability, 0, 0, 0)  # PR_CAPBSET_DROP
    library.prctl(38, 1, 0, 0, 0)
    restrict(text)
    library.capset((ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)())
    os.execv(sys.argv[2], sys.argv[2:])
