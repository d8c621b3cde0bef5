"""Bodies of nodes' requests, held to a size and a time."""

from __future__ import annotations

import asyncio
import time

from starlette.types import Message, Receive

BODY_SECONDS, SILENT_SECONDS = 120.0, 20.0
"""How long a body may take, and how long nothing of it may come."""


class BodyRefused(Exception):
    """A body that is not read to its end.

    `status` answers it, with a `reason` of Flower's; it is 0 where nobody waits for an answer.
    """

    def __init__(self, status: int, reason: bytes = b"") -> None:
        super().__init__(status)
        self.status = status
        self.reason = reason


class Body:
    """A read body, as the application receives it.

    Parameters
    ----------
    content : bytes
    receive : callable
        Asked for what comes after the body.
    """

    def __init__(self, content: bytes, receive: Receive) -> None:
        self._content: bytes | None = content
        self._receive = receive

    async def receive(self) -> Message:
        """Return the body, once; it is not kept."""
        if self._content is None:
            return await self._receive()
        content, self._content = self._content, None
        return {"type": "http.request", "body": content, "more_body": False}


class BodyReader:
    """Reader of a request's body.

    Parameters
    ----------
    receive : callable
    most : int
        Bytes.
    seconds, silent : float
        How long it may take, and how long nothing of it may come.
    """

    def __init__(
        self, receive: Receive, most: int, *, seconds: float = BODY_SECONDS, silent: float = SILENT_SECONDS
    ) -> None:
        self.most = most
        self._receive = receive
        self._end = time.monotonic() + seconds
        self._silent = silent
        self._pieces = list[bytes]()
        self.size = 0
        self._is_whole = False

    async def first(self, count: int) -> bytes:
        """Return the first bytes, so many or all that there are.

        Raises
        ------
        BodyRefused
            As `rest` does.
        """
        while self.size < count and not self._is_whole:
            await self._read_piece()
        return b"".join(self._pieces)[:count]

    async def rest(self) -> bytes:
        """Return the whole body, once; it is not kept.

        Raises
        ------
        BodyRefused
            If it is larger, takes longer, or its sender went away.
        """
        self._check_size()
        while not self._is_whole:
            await self._read_piece()
        pieces, self._pieces = self._pieces, []
        return b"".join(pieces)

    async def _read_piece(self) -> None:
        try:
            # Both limits at once: a sender that drips bytes is stopped by the whole time, a silent one sooner.
            async with asyncio.timeout(min(self._silent, self._end - time.monotonic())):
                message = await self._receive()
        except TimeoutError:
            raise BodyRefused(503) from None
        if message["type"] == "http.disconnect":
            raise BodyRefused(0)
        piece = message.get("body", b"")
        self._pieces.append(piece)
        self.size += len(piece)
        self._is_whole = not message.get("more_body", False)
        self._check_size()

    def _check_size(self) -> None:
        if self.size > self.most:
            raise BodyRefused(413)
