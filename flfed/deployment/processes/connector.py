"""Process that fetches node connections for the gate.

The gate may not connect by itself.

    gate (data, no `connect`) ── pair of sockets ── connector (no data) ── Unix socket ── relay (network) ── node

On both ways one byte requests a connection, and one byte replies, with or without an open socket. Without one, the
byte shows whether the node runs at all.
The gate's bytes cannot name a place, and the relay makes every socket that the gate gets. A restart of the node leaves
the connector and the gate running, with their tables warm; the connector ends with the gate.

Run as a program: `python -m flfed.deployment.processes.connector NUMBER PATH`, with the number of its end of the pair.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from dataclasses import dataclass, field
from pathlib import Path

from flfed.deployment.processes.child_processes import python
from flfed.deployment.processes.isolation import drop_capabilities, hide_memory, refuse_calls
from flfed.words import flfed_error

ASK = b"?"
HERE = b"+"
NONE = b"-"
ABSENT = b"0"
"""The request, and the replies: with a socket; without one; without a node."""
SAME_PROGRAM = "/proc/self/exe"
SECONDS = 5.0
"""How long the relay, which is on this machine, may take."""
LONGEST_SECONDS = 30.0
"""How long the connector may take, which asks the relay twice; a gate that waited on, in the middle of an answer, would
never be missed."""
END_SECONDS = 2.0
"""How long the connector may take to end; its supervisor gives the gate 10."""


class NodeAbsent(ConnectionRefusedError):
    """Error of an absent node.

    The node does not run, or has not started yet.
    """


def fetched(control: socket.socket) -> socket.socket:
    """Fetch a connection over a control socket.

    Raises
    ------
    EOFError
        If the other end is closed.
    NodeAbsent
        If the node is absent.
    ConnectionRefusedError
        If there is none to be had: the node has too many.
    """
    control.sendall(ASK)
    # Marked close-on-exec at once, so that no program started meanwhile inherits it.
    answer, numbers, _, _ = socket.recv_fds(control, 1, 1, getattr(socket, "MSG_CMSG_CLOEXEC", 0))
    if not answer:
        raise EOFError
    if answer == ABSENT:
        raise NodeAbsent("the node is not there")
    if not numbers:
        raise ConnectionRefusedError("the node has no connection to give")
    os.set_inheritable(numbers[0], False)  # where a system has no flag for it
    return socket.socket(fileno=numbers[0])


def hand_over(control: socket.socket, made: socket.socket | bytes) -> None:
    """Reply with a socket, or with the reason why there is none."""
    if isinstance(made, bytes):
        control.sendall(made)
    else:
        socket.send_fds(control, [HERE], [made.fileno()])


@dataclass
class RelayClient:
    """Client of the relay at a path.

    The relay may go away and come back.

    Parameters
    ----------
    path : Path
    """

    path: Path
    _asking: threading.Lock = field(default_factory=threading.Lock)
    _control: socket.socket | None = None

    def connect(self) -> socket.socket:
        """Return a connection to the node.

        Raises
        ------
        NodeAbsent
            If the node is absent.
        OSError
            If there is none now.
        """
        # One request at a time: two would mix up their replies on one control socket.
        with self._asking:
            # A restarted relay is at the same path: a broken control socket is opened once more.
            for control in dict.fromkeys((self._control, None)):
                try:
                    self._control = control or self._opened()
                    return fetched(self._control)
                except ConnectionRefusedError:
                    # A refusal is a reply; only a broken control socket is worth opening again.
                    raise
                except (EOFError, OSError):
                    self.close()
            raise ConnectionRefusedError("nobody relays to the node")

    def _opened(self) -> socket.socket:
        made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        made.settimeout(SECONDS)
        try:
            made.connect(str(self.path))
        except OSError as error:
            made.close()
            if isinstance(error, (FileNotFoundError, ConnectionRefusedError)):
                raise NodeAbsent("nobody relays to the node") from None
            raise
        return made

    def close(self) -> None:
        """Close the control socket.

        The next connection opens it again.
        """
        if self._control is not None:
            self._control.close()
            self._control = None


class Connector:
    """The gate's link to its connector process.

    Parameters
    ----------
    path : Path
        Of the relay's socket. It is fixed before the gate reads anything that came from elsewhere.
    """

    def __init__(self, path: Path) -> None:
        self._control, theirs = socket.socketpair()
        self._control.settimeout(LONGEST_SECONDS)
        self._asking = threading.Lock()
        words = python(__name__, str(theirs.fileno()), str(path))
        # This same program, also where its file lies in a folder that this user may not enter.
        program = SAME_PROGRAM if os.path.exists(SAME_PROGRAM) else None
        # Its end of the pair is closed here, so that the connector alone keeps it open.
        with theirs:
            self._process = subprocess.Popen(
                words, executable=program, stdin=subprocess.DEVNULL, pass_fds=[theirs.fileno()]
            )

    def connect(self) -> socket.socket:
        """Return a connection to the node.

        Raises
        ------
        NodeAbsent
            If the node is absent.
        ConnectionRefusedError
            If there is none now.
        FlfedError
            If the connector has ended: this process cannot reach the node any more, and needs a restart.
        """
        with self._asking:
            try:
                return fetched(self._control)
            except ConnectionRefusedError:
                raise
            except (EOFError, OSError):
                raise flfed_error("processes.gate.connector") from None

    def close(self) -> None:
        """Have the connector end."""
        self._control.close()
        try:
            self._process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def work(control: socket.socket, path: Path) -> None:
    """Fetch connections until the gate's end is closed."""
    relay = RelayClient(path)
    while control.recv(1):
        try:
            made = relay.connect()
        except NodeAbsent:
            hand_over(control, ABSENT)
            continue
        except OSError:
            hand_over(control, NONE)
            continue
        with made:
            hand_over(control, made)


if __name__ == "__main__":
    hide_memory()
    drop_capabilities()
    refuse_calls(connecting=True)  # where this fails it fails in the gate too, which reports it
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)  # also sent to the gate, which has yet to report that it ends
    try:
        work(socket.socket(fileno=int(sys.argv[1])), Path(sys.argv[2]))
    except OSError:
        os._exit(0)  # the gate is gone
