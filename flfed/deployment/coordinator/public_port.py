"""Guard of the coordinator's public port.

One coordinator serves on it; a second one is told so before anything is started.

Caddy listens so that a second Caddy of the same account could listen on the same port (`SO_REUSEPORT`), and get
half of the sites' connections. So the port is tried before, and a name for it is held meanwhile.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from flfed.errors import UsageError

ASK_SECONDS = 2.0


@contextmanager
def holding(bind: str, port: int) -> Iterator[None]:
    """Hold a port for a serving coordinator.

    It is held while the block runs.

    Parameters
    ----------
    bind : str
        The address; all of the machine's where empty.
    port : int

    Raises
    ------
    UsageError
        If another coordinator of this account has it, or some other program listens there.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as name:
        # Names without a file exist on Linux alone; elsewhere only the port itself is tried.
        if sys.platform == "linux":
            _take(name, f"\0flfed-coordinator-{bind or '*'}-{port}-{os.geteuid()}", port)
        try:
            _check_free(bind, port)
            yield
        finally:
            with suppress(OSError):
                name.shutdown(socket.SHUT_RDWR)  # so that who waits for a connection ends


def _taken(port: int, why: str) -> UsageError:
    return UsageError(f"port {port} {why}: stop that one first, or choose another port with --listen :PORT")


def _take(name: socket.socket, text: str, port: int) -> None:
    """Take a name that only one process can have.

    It is free again as soon as the process ends.

    Such a name belongs to no account: where another one took it only to be in the way, it does not count.
    """
    try:
        name.bind(text)
        name.listen()
    except OSError as error:
        # Only the same account's holder counts: a stranger's could be there to keep us from serving.
        if error.errno == errno.EADDRINUSE and _owner(text) == os.geteuid():
            raise _taken(port, "is served already by another coordinator of this account") from None
        return
    threading.Thread(target=_answer, args=(name,), daemon=True).start()


def _answer(name: socket.socket) -> None:
    """Accept and close each connection.

    Connections that nobody accepts fill the queue, and then no more owners can be asked for.
    """
    with suppress(OSError):
        while True:
            name.accept()[0].close()


def _owner(text: str) -> int | None:
    """Return the account that holds a name.

    None where it does not tell.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as asked:
        asked.settimeout(ASK_SECONDS)
        try:
            asked.connect(text)
        except OSError:
            return None
        credentials = asked.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
        return int(struct.unpack("3i", credentials)[1])


def _check_free(bind: str, port: int) -> None:
    """Refuse a port on which a program listens.

    Where this account may not take the port at all, Caddy reports it better.
    """
    # Without an address both families are tried: a listener on either would get some of the connections.
    families = [socket.AF_INET6 if ":" in bind else socket.AF_INET] if bind else [socket.AF_INET, socket.AF_INET6]
    for family in families:
        try:
            tried = socket.socket(family, socket.SOCK_STREAM)
        except OSError:
            continue  # a machine without it
        with tried:
            # Past what a server that has ended left behind, but not beside one that listens.
            tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                tried.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            try:
                tried.bind((bind or ("::" if family == socket.AF_INET6 else "0.0.0.0"), port))
            except OSError as error:
                if error.errno == errno.EADDRINUSE:
                    raise _taken(port, "is in use on this machine") from None
                if error.errno == errno.EACCES and _answers(bind, port):
                    raise _taken(port, "is in use on this machine") from None


def _answers(bind: str, port: int) -> bool:
    """Tell whether a program answers on a port.

    It is for ports that this account may not take, which binding cannot test.
    """
    try:
        socket.create_connection((bind or "127.0.0.1", port), ASK_SECONDS).close()
    except OSError:
        return False
    return True
