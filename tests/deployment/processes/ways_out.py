"""Ways out of the room that a process is in: each is tried, and answered with the error's name or "open".

A test puts it into a site's package, which the gate imports once it is isolated.
"""

import ctypes
import errno
import fcntl
import mmap
import os
import platform
import socket
import sys
from collections.abc import Callable
from contextlib import suppress

LIBRARY = ctypes.CDLL(None, use_errno=True)
LIBRARY.syscall.restype = ctypes.c_long
SEIZE = 0x4206
NEW_NET, NEW_USER = 0x40000000, 0x10000000
HERE = ("x86_64", "aarch64").index(platform.machine())
NUMBERS = {
    "ptrace": (101, 117), "process_vm_readv": (310, 270), "process_vm_writev": (311, 271), "unshare": (272, 97),
    "setns": (308, 268), "clone": (56, 220),
}  # fmt: skip


def call(number: int | str, *given: object) -> int:
    """Make a system call; raises its error."""
    found = LIBRARY.syscall(NUMBERS[number][HERE] if isinstance(number, str) else number, *given)
    if found < 0:
        raise OSError(ctypes.get_errno(), "")
    return int(found)


def tried(way: Callable[[], object]) -> str:
    """Return "open", or the name of the error that refused it."""
    try:
        way()
    except OSError as error:
        return errno.errorcode.get(error.errno or 0, type(error).__name__)
    return "open"


def beside(way: Callable[[], object]) -> str:
    """Try it in a child, for what cannot be taken back; a child that dies says how."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writing, tried(way).encode())
        os._exit(0)
    os.close(writing)
    said = os.read(reading, 99).decode()
    os.close(reading)
    return said or f"died {os.waitpid(child, 0)[1]}"


def connected(kind: int, path: str) -> None:
    with socket.socket(socket.AF_UNIX, kind) as made:
        made.sendto(b"x", path) if kind == socket.SOCK_DGRAM else made.connect(path)


def of_a_pair(path: str) -> None:
    one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with one, other:
        one.sendto(b"x", path)


def bound(name: str) -> None:
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(name)
        made.listen()


def memory_of(process: int) -> None:
    with open(f"/proc/{process}/mem", "rb+"):
        pass


def children() -> list[int]:
    """Return the processes that this one started."""
    found = []
    for place in os.scandir("/proc"):
        if place.name.isdecimal():
            with suppress(OSError), open(f"/proc/{place.name}/stat") as file:
                found += [int(place.name)] if int(file.read().rpartition(")")[2].split()[1]) == os.getpid() else []
    return found


def memory_of_children() -> None:
    for process in children():
        memory_of(process)


def in_32_bits() -> None:
    """Ask for a socket of the internet by the numbers of 32 bits, which are others."""
    if platform.machine() != "x86_64":
        raise OSError(errno.EPERM, "")
    code = b"\x53\xbb\x02\0\0\0\xb9\x01\0\0\0\x31\xd2\xb8\x67\x01\0\0\xcd\x80\x5b\xc3"
    held = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    held.write(code)
    made = ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(held)))()
    if made < 0:
        raise OSError(-made, "")


def new_user() -> None:
    if call("clone", NEW_USER | 17, 0, 0, 0, 0) == 0:
        os._exit(0)


def ways_out(parent: int, stream: str, datagram: str) -> dict[str, str]:
    """Try each way; `stream` and `datagram` are sockets of somebody else that everybody may open."""
    families = {"inet": 2, "inet6": 10, "netlink": 16, "packet": 17, "vsock": 40}
    found = {name: tried(lambda number=number: socket.socket(number, 1).close()) for name, number in families.items()}
    found["netlink"] = tried(lambda: socket.socket(16, 3).close())
    found["packet"] = tried(lambda: socket.socket(17, 2).close())
    one = ctypes.create_string_buffer(64)
    piece = (ctypes.c_uint64 * 2)(ctypes.addressof(one), 8)
    process = call(434, parent, 0)  # pidfd_open
    return {
        **found,
        "foreign socket": tried(lambda: connected(socket.SOCK_STREAM, stream)),
        "foreign datagram": tried(lambda: connected(socket.SOCK_DGRAM, datagram)),
        "datagram of a pair": tried(lambda: of_a_pair(datagram)),
        "listening": tried(lambda: bound(f"\0flfed-{os.getpid()}")),
        "io_uring": tried(lambda: call(425, 1, ctypes.create_string_buffer(256))),
        "ptrace": beside(lambda: call("ptrace", SEIZE, parent, 0, 0)),
        "process_vm_readv": tried(lambda: call("process_vm_readv", parent, piece, 1, piece, 1, 0)),
        "process_vm_writev": tried(lambda: call("process_vm_writev", parent, piece, 1, piece, 1, 0)),
        "memory of the parent": tried(lambda: memory_of(parent)),
        "memory of children": tried(memory_of_children),
        "file of the parent": tried(lambda: call(438, process, 0, 0)),
        "unshare": beside(lambda: call("unshare", NEW_NET)), "unshare user": beside(lambda: call("unshare", NEW_USER)),
        "clone": beside(new_user), "clone3": tried(lambda: call(435, 0, 0)),
        "setns": beside(lambda: call("setns", process, NEW_NET)),
        "a terminal": tried(lambda: fcntl.ioctl(0, 0x5412, b"x")), "x32": tried(lambda: call(0x40000000 | 41, 2, 1, 0)),
        "32 bits": beside(in_32_bits),
        "a call of tomorrow": tried(lambda: call(467, -1, 0, 0, 0, 0)),
    }  # fmt: skip


if __name__ == "__main__":
    print(ways_out(os.getppid(), *sys.argv[1:]))
