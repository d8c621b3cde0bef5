"""Bodies of nodes' requests, and the objects that nodes push.

A body is held to a size and a time; a pushed object is known by its first bytes.

Flower reads an object whole before it asks for which run it is, and whether anybody declared it. But its nodes write
run and object before the content, and the session behind it: so the first bytes are enough to refuse it.

Private to Flower 1.42: the numbers and the order of the fields of `PushObjectRequest`; the tables `run`,
`object_push_sessions` and `object_push_session_pending`, which are read.
"""

from __future__ import annotations

import asyncio
import sqlite3
import time
from contextlib import closing
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from urllib.parse import quote

from starlette.types import Message, Receive

from flfed.deployment.flower.message_purge import signed_number
from flfed.flower_names import INSTALL

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


HEAD_BYTES = 4096
"""What is read of a pushed object before it is looked up; Flower's nodes write about 100 bytes before the content."""
TAIL_BYTES = 100
"""What may follow the content: the session's name has 38 bytes."""
NODE, RUN, OBJECT, CONTENT = 0x0A, 0x10, 0x1A, 0x22
"""Tags of the fields up to the content: its number, shifted by three bits, and its type on the wire."""
MOST_NUMBER = 2**64
BUSY_SECONDS = 5.0
"""How long Flower's own work may keep the database busy."""
LOOK_UP = """
SELECT EXISTS (SELECT 1 FROM run WHERE run_id = :run), EXISTS (
    SELECT 1 FROM object_push_session_pending JOIN object_push_sessions USING (session_id)
    WHERE object_id = :object AND run_id = :run)
"""


class Declared(Enum):
    """What the server knows of a pushed object.

    - `YES`: the run waits for it
    - `NO`: the run is known, and does not wait for it
    - `NO_RUN`: nobody began such a run
    """

    YES = "yes"
    NO = "no"
    NO_RUN = "no run"


class HeadError(ValueError):
    """The first bytes are not those of a node of Flower."""


@dataclass(frozen=True)
class ObjectHead:
    """Beginning of a pushed object.

    Attributes
    ----------
    run_id : int
    object_id : str
    fields : bytes
        What stands before the content, by itself a request without one.
    most : int
        Bytes that the whole request may have.
    """

    run_id: int
    object_id: str
    fields: bytes
    most: int

    @classmethod
    def parse(cls, content: bytes) -> ObjectHead:
        """Return the head of a request.

        Parameters
        ----------
        content : bytes
            The first ones, or all.

        Raises
        ------
        HeadError
            If the content is not preceded by node, run and object, once each and in this order.
        """
        fields = _Fields(content)
        fields.expect(NODE)
        fields.read_bytes()
        fields.expect(RUN)
        run_id = fields.read_number()
        fields.expect(OBJECT)
        object_id = fields.read_bytes()
        end = fields.position
        fields.expect(CONTENT)
        size = fields.read_number()
        if not object_id.isascii():
            raise HeadError("the object's name is no SHA-256")
        return cls(run_id, object_id.decode("ascii"), content[:end], fields.position + size + TAIL_BYTES)


class _Fields:
    """Reader of the protobuf wire format, within the bytes that are there."""

    def __init__(self, content: bytes) -> None:
        self._content = content
        self.position = 0

    def expect(self, tag: int) -> None:
        """Read a field's tag, which must be this one."""
        if self.read_number() != tag:
            raise HeadError("another field stands where Flower's nodes have none")

    def read_number(self) -> int:
        """Return a number of 64 bits: seven a byte, the lowest first; the last byte is below 128."""
        number = 0
        for shift in range(0, 70, 7):
            byte = self._take(1)[0]
            number |= (byte & 0x7F) << shift
            if byte < 0x80:
                break
        else:
            raise HeadError("a number does not end")
        if number >= MOST_NUMBER:
            raise HeadError("a number has more than 64 bits")
        return number

    def read_bytes(self) -> bytes:
        """Return bytes that are preceded by how many they are."""
        return self._take(self.read_number())

    def _take(self, count: int) -> bytes:
        end = self.position + count
        if end > len(self._content):
            raise HeadError("the content does not begin within the first bytes")
        taken = self._content[self.position : end]
        self.position = end
        return taken


class PushedObjects:
    """Objects that runs wait for, by Flower's database.

    Parameters
    ----------
    database : Path
        Of the SuperLink of this process.
    """

    def __init__(self, database: Path) -> None:
        self._address = f"file:{quote(str(database))}?mode=ro"

    def look_up(self, run_id: int, object_id: str) -> Declared:
        """Return what is known of an object.

        Raises
        ------
        sqlite3.Error
            If the database is busy, or has no such tables.
        """
        asked = {"run": signed_number(run_id), "object": object_id}
        with closing(sqlite3.connect(self._address, uri=True, timeout=BUSY_SECONDS)) as connection:
            run, pending = connection.execute(LOOK_UP, asked).fetchone()
        if pending:
            return Declared.YES
        return Declared.NO if run else Declared.NO_RUN

    def problem(self) -> str:
        """Return in a sentence why nothing can be looked up; empty where it can."""
        try:
            self.look_up(0, "")
        except sqlite3.Error as error:
            return f"this Flower does not keep the objects it waits for where flfed looks ({error}); {INSTALL}"
        return ""
