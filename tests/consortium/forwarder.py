"""A forwarder between a site and its coordinator, which breaks connections in the ways that networks do."""

import asyncio
import contextlib
import socket
import ssl
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

LOOPBACK = "127.0.0.1"
HANDSHAKE = 2
"""Pieces that a server sends before its first answer, in TLS 1.3."""


@dataclass(eq=False)
class Passing:
    """One connection."""

    writers: tuple[asyncio.StreamWriter, asyncio.StreamWriter]
    pieces: int = 0
    spoilt: bool = False

    def cut(self, *, reset: bool = False) -> None:
        for writer in self.writers:
            if reset:
                writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()


class Forwarder:
    """Passes on what comes to `port`, until it is told to break: see `breaking`."""

    def __init__(self, target: int, *, certificate: Path, key: Path) -> None:
        """`certificate` and `key` are those of a server that no site trusts."""
        self._target, self._how, self.answered = target, "", 0.0
        self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._tls.load_cert_chain(certificate, key)
        self._open: set[Passing] = set()
        self._loop, self._ready = asyncio.new_event_loop(), threading.Event()
        self._thread = threading.Thread(target=self._loop.run_until_complete, args=(self._serve(),), daemon=True)
        self._thread.start()
        assert self._ready.wait(60)

    async def _serve(self) -> None:
        self._over, self._free = asyncio.Event(), asyncio.Event()
        self._free.set()
        wrong = await asyncio.start_server(lambda *_: None, LOOPBACK, 0, ssl=self._tls)
        server = await asyncio.start_server(self._accept, LOOPBACK, 0)
        self.port, self._wrong = (int(made.sockets[0].getsockname()[1]) for made in (server, wrong))
        self._ready.set()
        await self._over.wait()
        for made in (server, wrong):
            made.close()
        self._cut()
        await asyncio.sleep(0.1)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._how == "end of file":
            writer.close()
            return
        port = self._wrong if self._how == "wrong certificate" else self._target
        try:
            behind, ahead = await asyncio.open_connection(LOOPBACK, port)
        except OSError:
            writer.close()
            return
        passing = Passing((writer, ahead))
        self._open.add(passing)
        await asyncio.gather(
            self._pump(passing, reader, ahead, back=False), self._pump(passing, behind, writer, back=True)
        )
        self._open.discard(passing)

    async def _pump(
        self, passing: Passing, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, back: bool
    ) -> None:
        with contextlib.suppress(OSError):
            while piece := await reader.read(65536):
                await self._free.wait()
                if back and self._how == "one-way loss":
                    passing.spoilt = True
                    continue
                if self._how == "reset in mid-body":
                    writer.write(piece[: len(piece) // 2])
                    await asyncio.sleep(0.01)
                    passing.cut(reset=True)
                    return
                writer.write(piece)
                await writer.drain()
                passing.pieces += back
                if back and not passing.spoilt and passing.pieces > HANDSHAKE:
                    self.answered = time.monotonic()
        with contextlib.suppress(OSError):
            writer.close()

    def _cut(self) -> None:
        for passing in self._open:
            passing.cut()

    def _begin(self, how: str) -> None:
        self._how = how
        if how == "nothing":
            self._free.clear()
        elif how in ("wrong certificate", "end of file"):
            self._cut()

    def _end(self) -> None:
        if self._how == "wrong certificate":
            self._cut()
        self._how = ""
        self._free.set()

    @contextmanager
    def breaking(self, how: str) -> Iterator[None]:
        """Break in one of the ways until the block ends."""
        self._loop.call_soon_threadsafe(self._begin, how)
        try:
            yield
        finally:
            self._loop.call_soon_threadsafe(self._end)

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._over.set)
        self._thread.join(10)
        self._loop.close()
