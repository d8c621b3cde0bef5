"""Objects that nodes push, known by their first bytes.

Flower reads an object whole before it asks for which run it is, and whether anybody declared it. But its nodes write
run and object before the content, and the session behind it: so the first bytes are enough to refuse it.

Private names of Flower 1.41: the numbers and the order of the fields of `PushObjectRequest`; the tables `run`,
`object_push_sessions` and `object_push_session_pending`, which are read.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from urllib.parse import quote

from flfed.deployment.flower.message_purge import signed_number

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
            return f"this Flower does not keep the objects it waits for where flfed looks ({error}); install flwr 1.41"
        return ""
