"""Relay between the network's process and the gate.

It is a Unix socket in the process that has the network, for the one that has none.

A process that connects there requests a connection with a byte, and gets an open socket (SCM_RIGHTS). Bytes on that
socket go to one port of this machine's loopback and nowhere else. The relay reads none of them, so they cannot name
another place.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import stat
import threading
from collections.abc import Coroutine, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from flfed.deployment.processes.child_processes import LOOPBACK
from flfed.deployment.processes.connector import ABSENT, NONE, hand_over
from flfed.errors import UsageError
from flfed.files import made_with
from flfed.words import usage_error

MODE = 0o660
"""Of the socket: for its owner and its group, who may enter its folder."""
MOST = 16
"""Connections at a time. The gate has one open request, and a few for a message's arrays."""
ASKERS = 4
"""Processes that may connect at a time: one gate, and gates before it that have just ended."""
IDLE_SECONDS = 60.0
"""A connection that was silent for so long is closed; the gate opens another when it needs one."""
LONGEST = 107
"""Bytes of a Unix socket's path (Linux: 108, with the ending zero)."""
REFUSED_SECONDS = 0.5
CHUNK = 1 << 16


def check_length(path: Path) -> None:
    """Refuse a path that no Unix socket can have.

    Raises
    ------
    UsageError
        With the remedy.
    """
    if len(os.fsencode(path)) > LONGEST:
        raise usage_error("processes.socket.long", path=path, most=LONGEST)


def bound(path: Path) -> socket.socket:
    """Return a listening Unix socket at `path`.

    It is for its owner and group; an unused socket there is replaced.

    Raises
    ------
    UsageError
        If a process serves there already, if the path is of another kind of file, or if it is too long.
    """
    check_length(path)
    if path.is_symlink() or (path.exists() and not stat.S_ISSOCK(path.lstat().st_mode)):
        raise usage_error("processes.socket.file", path=path)
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        check_free(path)
        with made_with(MODE):  # no moment in which others could connect
            made.bind(str(path))
        made.listen(MOST)
    except OSError as error:
        made.close()
        raise usage_error("processes.socket.unmade", path=path, why=error.strerror) from None
    except UsageError:
        made.close()
        raise
    return made


def check_free(path: Path) -> None:
    """Refuse to serve a site a second time.

    A socket without a serving process is removed.

    Raises
    ------
    UsageError
        If the site is served already.
    """
    if not path.is_socket():
        return
    # Only a connection shows whether a process still serves there: the file outlives its process.
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as asking:
        try:
            asking.connect(str(path))
        except ConnectionRefusedError:
            path.unlink(missing_ok=True)
            return
    raise usage_error("processes.socket.served", path=path)


@dataclass
class Relay:
    """Forwarder between a Unix socket and a loopback port.

    Parameters
    ----------
    port : int
        Of 127.0.0.1.
    most : int
        Connections at a time; one more is refused.
    idle : float, seconds
        How long a connection may be silent.
    """

    port: int
    _asking: set[asyncio.Task[None]] = field(default_factory=set)
    _open: set[asyncio.Task[None]] = field(default_factory=set)

    async def serve(self, listening: socket.socket, ended: asyncio.Event) -> None:
        """Serve until `ended`; every connection is closed then."""
        with listening:
            accepting = asyncio.create_task(self._accept(listening))
            await ended.wait()
            running = [accepting, *self._asking, *self._open]
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)

    async def _accept(self, listening: socket.socket) -> None:
        listening.setblocking(False)
        while True:
            try:
                control, _ = await asyncio.get_running_loop().sock_accept(listening)
            except OSError:
                await asyncio.sleep(REFUSED_SECONDS)  # too many open files, here or on the machine
                continue
            # One gate connects, and perhaps one that is just ending: more are refused.
            if len(self._asking) >= ASKERS:
                control.close()
            else:
                _note(self._asking, self._hand_out(control))

    async def _hand_out(self, control: socket.socket) -> None:
        """Answer one gate until it is gone."""
        with control, contextlib.suppress(OSError):
            control.setblocking(False)
            while await asyncio.get_running_loop().sock_recv(control, 1):
                made = await self._connected()
                try:
                    hand_over(control, made)
                finally:
                    if isinstance(made, socket.socket):
                        made.close()

    async def _connected(self) -> socket.socket | bytes:
        """Return one end of a new connection to the node.

        Return the byte with the reason where there is none.
        """
        if len(self._open) >= MOST:
            return NONE
        try:
            node = await asyncio.open_connection(LOOPBACK, self.port)
        except ConnectionRefusedError:
            return ABSENT  # its own port does not listen, or not yet
        except OSError:
            return NONE
        # The gate's end is one of a pair: its socket can only lead here.
        try:
            ours, theirs = socket.socketpair()
        except OSError:
            await _close(node[1])
            return NONE
        gate = await asyncio.open_connection(sock=ours)
        _note(self._open, self._forward(*gate, *node))
        return theirs

    async def _forward(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        node_reader: asyncio.StreamReader,
        node_writer: asyncio.StreamWriter,
    ) -> None:
        try:
            # One clock for both directions: a long answer keeps the other, silent direction open.
            async with asyncio.timeout(IDLE_SECONDS) as clock, asyncio.TaskGroup() as both:
                both.create_task(self._pump(reader, node_writer, clock))
                both.create_task(self._pump(node_reader, writer, clock))
        except* OSError:
            pass  # one side is gone, or was silent for too long (TimeoutError is an OSError)
        finally:
            await _close(node_writer)
            await _close(writer)

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, clock: asyncio.Timeout) -> None:
        """Copy one direction of a connection.

        Each piece, whichever way it goes, resets the idle clock.
        """
        while piece := await reader.read(CHUNK):
            clock.reschedule(asyncio.get_running_loop().time() + IDLE_SECONDS)
            writer.write(piece)
            await writer.drain()
        if writer.can_write_eof():
            writer.write_eof()


def _note(tasks: set[asyncio.Task[None]], work: Coroutine[None, None, None]) -> None:
    """Start a background task and count it while it runs."""
    task = asyncio.create_task(work)
    tasks.add(task)
    task.add_done_callback(tasks.discard)


async def _close(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with contextlib.suppress(OSError, asyncio.CancelledError):
        await writer.wait_closed()


@contextlib.contextmanager
def relaying(path: Path, port: int) -> Iterator[None]:
    """Relay to a loopback port during the block.

    It listens on the socket at `path`, in a thread.
    """
    listening = bound(path)
    loop = asyncio.new_event_loop()
    ended = asyncio.Event()
    relay = Relay(port)
    thread = threading.Thread(
        target=lambda: loop.run_until_complete(relay.serve(listening, ended)), name="gate-relay", daemon=True
    )
    thread.start()
    try:
        yield
    finally:
        # The loop runs in another thread: the event must be set from within.
        loop.call_soon_threadsafe(ended.set)
        thread.join()
        loop.close()
        path.unlink(missing_ok=True)
