"""Messages by which the coordinator countersigns a site's ledger.

It signs the ledger's head. Each class says what its message reveals.

Two exchanges: the site says what its ledger's head is, the coordinator signs it and sends the signature.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, TypeVar, cast

from flwr.app import RecordDict

from flfed.refusals import Refusal
from flfed.updates.messages import fields
from flfed.updates.messages.fields import PROTOCOL, MalformedMessage
from flfed.updates.messages.in_memory_arrays import record_of

SEAL = "query.seal"
SEALED = "query.sealed"
RunName = Annotated[str, r"[A-Za-z0-9][A-Za-z0-9-]{0,99}"]
Hash = Annotated[str, r"[0-9a-f]{64}"]
HashOrNone = Annotated[str, r"([0-9a-f]{64})?"]
Signature = Annotated[str, r"[0-9a-f]{128}"]

Kind = TypeVar("Kind")


@dataclass(frozen=True, kw_only=True)
class SealRequest:
    """Request for the head of a site's ledger.

    Attributes
    ----------
    run : str
    n_known : int
        Lines of the site's ledger when the coordinator last signed its head; 0 where it never did.

    Reveals: nothing about rows; it goes to the site.
    """

    run: RunName
    n_known: int

    def to_record(self) -> RecordDict:
        """Return the message's content."""
        return _written(self)

    @classmethod
    def from_record(cls, record: RecordDict) -> SealRequest:
        """Read the message's content."""
        return _read(cls, record, "n_known")


@dataclass(frozen=True, kw_only=True)
class SealReply:
    """The head of a site's ledger.

    Attributes
    ----------
    n : int
        Lines of the ledger.
    head : str
        Hash of the last of them; zeros where there is none.
    at_known : str
        Hash of the line that the coordinator signed last; empty where the ledger no longer has it.

    Reveals: nothing about rows. How many messages the site has answered or refused in all, under
    every study, so that a reader sees by how many it grew since the run before. The hashes tell
    nothing to who does not know the lines; who can guess a whole line, with its time and the hash of
    what left, and knows the one before it, can see that the guess is right.
    """

    n: int
    head: Hash
    at_known: HashOrNone = ""

    def to_record(self) -> RecordDict:
        """Return the message's content."""
        return _written(self)

    @classmethod
    def from_record(cls, record: RecordDict) -> SealReply:
        """Read the message's content."""
        return _read(cls, record, "n")


@dataclass(frozen=True, kw_only=True)
class SealedRequest:
    """Signature of the coordinator over a ledger's head.

    It is over the coordinator's name, the run, and the head of the site's ledger.

    Attributes
    ----------
    run : str
    n : int
    head : str
    signature : str
        Ed25519, as hex.

    Reveals: nothing about rows; it goes to the site.
    """

    run: RunName
    n: int
    head: Hash
    signature: Signature

    def to_record(self) -> RecordDict:
        """Return the message's content."""
        return _written(self)

    @classmethod
    def from_record(cls, record: RecordDict) -> SealedRequest:
        """Read the message's content."""
        return _read(cls, record, "n")


@dataclass(frozen=True, kw_only=True)
class SealedReply:
    """Confirmation that the receipt is kept.

    Reveals: nothing about rows; that the site holds the receipt on its disk.
    """

    def to_record(self) -> RecordDict:
        """Return the message's content."""
        return _written(self)

    @classmethod
    def from_record(cls, record: RecordDict) -> SealedReply:
        """Read the message's content."""
        return _read(cls, record)


def _written(message: Any) -> RecordDict:
    return record_of({"config": fields.config_record(protocol=PROTOCOL, **fields.fields_of(message))})


def _read(kind: type[Kind], record: RecordDict, counted: str = "") -> Kind:
    """Return a message whose count of lines is not negative.

    The count is in its field `counted`.
    """
    # What came over the border is checked, first by type and then by what it counts.
    found = fields.made(kind, fields.config_of(record))
    if counted and getattr(found, counted) < 0:
        raise MalformedMessage(Refusal("lines-negative", message=kind.__name__))
    return cast(Kind, found)
