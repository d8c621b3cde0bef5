"""Become a command under what the gate's unit does to it: no network, no socket but Unix ones, no new namespace.

`restricted.py COMMAND…`. systemd is not running where tests run; this is the part of
`PrivateNetwork`, `RestrictAddressFamilies=AF_UNIX`, `RestrictNamespaces` and `NoNewPrivileges` that could break it.
"""

from __future__ import annotations

import ctypes
import os
import struct
import sys

LOAD, EQUAL, RETURN = 0x20, 0x15, 0x06  # BPF_LD|W|ABS, BPF_JMP|JEQ|K, BPF_RET|K
ALLOW, FAIL = 0x7FFF0000, 0x00050000
NUMBERS = {"x86_64": (41, 272), "aarch64": (198, 97)}
"""Numbers of the calls `socket` and `unshare`."""


def filtered() -> bytes:
    socket, unshare = NUMBERS[os.uname().machine]
    program = [
        (LOAD, 0, 0, 0),  # the call's number
        (EQUAL, 0, 1, unshare),
        (RETURN, 0, 0, FAIL | 1),  # EPERM
        (EQUAL, 1, 0, socket),
        (RETURN, 0, 0, ALLOW),
        (LOAD, 0, 0, 16),  # the first argument: the family
        (EQUAL, 0, 1, 1),  # AF_UNIX
        (RETURN, 0, 0, ALLOW),
        (RETURN, 0, 0, FAIL | 97),  # EAFNOSUPPORT
    ]
    return b"".join(struct.pack("=HBBI", *line) for line in program)


if __name__ == "__main__":
    library = ctypes.CDLL(None, use_errno=True)
    if library.unshare(0x40000000) != 0:
        sys.exit("unshare failed")
    code = filtered()
    held = ctypes.create_string_buffer(code)
    bpf = struct.pack("HxxxxxxQ", len(code) // 8, ctypes.addressof(held))
    library.prctl(38, 1, 0, 0, 0)
    if library.prctl(22, 2, ctypes.create_string_buffer(bpf), 0, 0) != 0:
        sys.exit("seccomp failed")
    os.execv(sys.argv[1], sys.argv[1:])
