"""HTTP transport over given sockets, a server that is away, and the time that its answers have.

httpx sends its requests through it and opens no connection by itself. A request to a server that is away is repeated.

Private name of httpx 0.28 that this file uses: `HTTPTransport._pool`, replaced by a pool of httpcore with flfed's
network backend (`CONTRIBUTING.md`). All other names of httpcore here are public.
"""

from __future__ import annotations

import select
import socket
import time
from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import httpcore
import httpx

from flfed.callbacks import now_utc
from flfed.deployment.flower.pacing import pauses
from flfed.flower_names import AHEAD_SECONDS, OLDEST_SECONDS
from flfed.words import flfed_error, render

TOO_MANY = 429
SERVER_ERRORS = 500
"""Status codes: too many requests; from the second on the fault is the server's."""


def is_away(status: int) -> bool:
    """Return whether a status code calls for another request.

    The server is away, has too much to do, or failed for now.

    Examples
    --------
    >>> [is_away(status) for status in (200, 404, 412, 413, 429, 500, 503, 507)]
    [False, False, False, False, True, True, True, True]
    """
    return status == TOO_MANY or status >= SERVER_ERRORS


BEHIND_SECONDS = 60.0
"""By which this machine's clock may be behind the server's before people read of it."""


def time_of(text: str) -> datetime | None:
    """Return the time of an answer's `Date`, None without one."""
    try:
        at = parsedate_to_datetime(text)
        # A time without a zone is UTC in HTTP.
        return at if at.tzinfo else at.replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        return None


def seconds_ahead(at: datetime | None, now: datetime | None = None, *, share: float = 1.0) -> float:
    """Return by how far this machine's clock, now, is ahead of the server's; 0 within a share of the limits."""
    ahead = ((now or now_utc()) - at).total_seconds() if at is not None else 0.0
    return 0.0 if -BEHIND_SECONDS * share <= ahead <= AHEAD_SECONDS * share else ahead


def describe_clock(ahead: float) -> str:
    """Return the sentence about a clock that is ahead, or behind where the seconds are negative."""
    facts = {"seconds": abs(ahead), "ahead": AHEAD_SECONDS, "behind": OLDEST_SECONDS}
    return render("processes.clock.ahead" if ahead > 0 else "processes.clock.behind", **facts)


def retry(invoker: Any, first: float, most: float, is_final: Callable[[Exception], bool]) -> None:
    """Have a retry policy of Flower repeat lost requests.

    They are lost by line or server; the pauses double.
    """
    invoker.wait_gen_factory = lambda: pauses(first, most)
    invoker.recoverable_exceptions = (httpx.TransportError, httpx.HTTPStatusError)
    invoker.should_giveup = is_final
    invoker.on_success = None
    invoker.on_backoff = None
    invoker.on_giveup = None
    invoker.wait_function = time.sleep


AT_A_TIME = 4
KEEPALIVE_SECONDS = 2.0
"""Connections, and seconds until an unused one is closed: the node closes its own after 5."""
Connect = Callable[[], socket.socket]
"""Returns a connection to the node, or raises OSError."""


class SocketStream(httpcore.NetworkStream):
    """A connected socket, as httpcore reads and writes it."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """Return received bytes, b"" at the end."""
        try:
            self._socket.settimeout(timeout)
            return self._socket.recv(max_bytes)
        except TimeoutError as error:
            raise httpcore.ReadTimeout from error
        except OSError as error:
            raise httpcore.ReadError from error

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """Send all bytes."""
        try:
            self._socket.settimeout(timeout)
            self._socket.sendall(buffer)
        except TimeoutError as error:
            raise httpcore.WriteTimeout from error
        except OSError as error:
            raise httpcore.WriteError from error

    def close(self) -> None:
        """Close it."""
        self._socket.close()

    def get_extra_info(self, info: str) -> Any:
        """Return whether an unused connection was closed.

        Readable bytes on it mean that the node closed it.
        """
        if info != "is_readable":
            return None
        return self._socket.fileno() < 0 or bool(select.select([self._socket], [], [], 0)[0])


class HandedConnections(httpcore.NetworkBackend):
    """Connection backend with one destination.

    httpcore asks it for connections, whatever the address.
    """

    def __init__(self, connect: Connect) -> None:
        self._connect = connect

    def connect_tcp(self, *arguments: Any, **options: Any) -> httpcore.NetworkStream:
        """Return a connection to the node."""
        try:
            return SocketStream(self._connect())
        except OSError as error:
            raise httpcore.ConnectError from error


class NodeTransport(httpx.HTTPTransport):
    """httpx transport with connections to the node only.

    Parameters
    ----------
    connect : callable () → socket
    """

    def __init__(self, connect: Connect) -> None:
        super().__init__(verify=False, trust_env=False)
        # The pool is a private name: another httpx must fail here, and not open connections of its own.
        if not hasattr(self, "_pool"):
            raise flfed_error("processes.link.httpx")
        self._pool.close()
        self._pool = httpcore.ConnectionPool(
            max_connections=AT_A_TIME,
            keepalive_expiry=KEEPALIVE_SECONDS,
            retries=1,
            network_backend=HandedConnections(connect),
        )
